// Package log writes the lines that RKE2 writes to the journal.
package log

import (
	"fmt"
	"os"
	"time"
)

func write(level, format string, a ...any) {
	fmt.Fprintf(os.Stderr, "time=%q level=%s msg=%q\n", time.Now().UTC().Format(time.RFC3339), level, fmt.Sprintf(format, a...))
}

// Info reports progress.
func Info(format string, a ...any) { write("info", format, a...) }

// Warn reports what an administrator should look at.
func Warn(format string, a ...any) { write("warning", format, a...) }

// Error reports a failure that will be tried again.
func Error(format string, a ...any) { write("error", format, a...) }

// Fatal reports a failure and ends the process with status 1.
func Fatal(format string, a ...any) {
	write("fatal", format, a...)
	os.Exit(1)
}
