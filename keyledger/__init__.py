"""What other people import or type: publish key use, ask the checker, guard a Flask app, the command line."""
