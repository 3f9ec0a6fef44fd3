"""OpenAI's two dialects (completions and chat completions): what a body may say, and what an answer looks like."""
