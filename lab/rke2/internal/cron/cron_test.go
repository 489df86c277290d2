package cron

import (
	"testing"
	"time"
)

func TestNext(t *testing.T) {
	from := time.Date(2026, 2, 28, 23, 30, 15, 0, time.UTC) // a Saturday
	for text, want := range map[string]string{
		"0 */6 * * *":     "2026-03-01T00:00:00Z",
		"*/5 * * * *":     "2026-02-28T23:35:00Z",
		"0 0 29 2 *":      "2028-02-29T00:00:00Z",
		"15,45 1-3 * * *": "2026-03-01T01:15:00Z",
		"0 12 * * 1":      "2026-03-02T12:00:00Z",
		"0 12 15 * 1":     "2026-03-02T12:00:00Z",
		"30 23 * * *":     "2026-03-01T23:30:00Z",
		"@daily":          "2026-03-01T00:00:00Z",
		"@every 90s":      "2026-02-28T23:31:45Z",
		"0 0 31 4 *":      "0001-01-01T00:00:00Z",
	} {
		s, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := s.Next(from).Format(time.RFC3339); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestBroken(t *testing.T) {
	for _, text := range []string{"", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "*/0 * * * *", "5-1 * * * *", "a * * * *", "@every x", "@often"} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}
