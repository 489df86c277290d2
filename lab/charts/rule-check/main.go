// Command rule-check judges what it reads on stdin with the real programs' own parsers, and exits 1 with what they say.
//
//	rule-check promql          one expression of PromQL a line
//	rule-check alertmanager    a configuration of Alertmanager
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/prometheus/promql/parser"
)

func promql() error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if _, err := parser.NewParser(parser.Options{}).ParseExpr(lines.Text()); err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
	}
	return lines.Err()
}

func alertmanager() error {
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		_, err = config.Load(string(text))
	}
	return err
}

func main() {
	judges := map[string]func() error{"promql": promql, "alertmanager": alertmanager}
	judge, known := judges[os.Args[len(os.Args)-1]]
	if !known {
		fmt.Fprintln(os.Stderr, "usage: rule-check promql|alertmanager < TEXT")
		os.Exit(2)
	}
	if err := judge(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
