"""The evidence as Markdown, for a pull request."""
