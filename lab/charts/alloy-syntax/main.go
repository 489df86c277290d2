// Command alloy-syntax reads a configuration of Alloy on stdin, and exits 1 with the place of the first mistake that
// Alloy's own parser finds. It knows the language, not the components.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/grafana/alloy/syntax/parser"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		_, err = parser.ParseFile("config.alloy", text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
