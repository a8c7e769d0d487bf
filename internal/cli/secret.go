package cli

import (
	"os"
	"strings"
)

// Secret reads a secret from the file that a flag names, else from a
// variable. One trailing newline of the file is dropped, because that is how
// editors and `kubectl create secret --from-file` leave it. A missing secret
// is the empty string; the caller decides whether it is needed.
func (a *App) Secret(file, variable string) (string, error) {
	if file == "" {
		return a.Getenv(variable), nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", Usage("read the secret for %s: %w", variable, err)
	}
	text := strings.TrimSuffix(string(content), "\n")
	text = strings.TrimSuffix(text, "\r")
	if text == "" {
		return "", Usage("secret file %s is empty", file)
	}
	return text, nil
}

// refusePassword explains why a URL must not carry a password.
func refusePassword(flag, variable, fileFlag string) error {
	return Usage("--%s: a password in the URL would show in the process list and in logs; set %s or give --%s", flag, variable, fileFlag)
}
