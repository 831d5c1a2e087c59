"""What `-m check` looks at before any epoch: settings, lists, files, headers, contents, machine."""
