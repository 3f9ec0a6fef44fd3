"""The control loop: one leader by lease and term decides roles, every balancer is a janitor.

Without a balancer, roles stay as they are and everything else goes on.
"""
