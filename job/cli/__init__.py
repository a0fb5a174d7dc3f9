"""The commands for people: sessions, report, plan and doctor. Each pays only for what it imports itself."""
