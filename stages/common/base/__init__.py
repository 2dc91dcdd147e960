"""What every stage needs: arguments and exit codes, errors, files, params, paths."""
