"""A reference AI service: a real HTTP server of the contract in `core.ai_contract`. Not a medical device."""
