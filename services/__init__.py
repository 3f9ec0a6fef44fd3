"""The four services of Bucket Brigade: router, prefill, decode and balancer, and the worker host of the two roles."""
