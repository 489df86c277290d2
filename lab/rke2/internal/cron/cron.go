// Package cron reads the five-field schedules that RKE2 takes for etcd
// snapshots, and the descriptors @hourly, @daily … and @every DURATION.
package cron

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Schedule says when something is due.
type Schedule struct {
	minute, hour, day, month, weekday uint64
	anyDay, anyWeekday                bool
	every                             time.Duration
}

var descriptors = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *",
	"@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// Parse reads a schedule.
func Parse(text string) (Schedule, error) {
	var s Schedule
	if rest, found := strings.CutPrefix(text, "@every "); found {
		d, err := time.ParseDuration(rest)
		if err != nil || d < time.Second {
			return s, fmt.Errorf("schedule %q: @every takes a duration of at least 1s", text)
		}
		s.every = d
		return s, nil
	}
	if long, found := descriptors[text]; found {
		text = long
	}
	fields := strings.Fields(text)
	if len(fields) != 5 {
		return s, fmt.Errorf("schedule %q has %d fields; it takes 5: minute hour day month weekday", text, len(fields))
	}
	bounds := []struct {
		name     string
		from, to int
		into     *uint64
	}{{"minute", 0, 59, &s.minute}, {"hour", 0, 23, &s.hour}, {"day", 1, 31, &s.day}, {"month", 1, 12, &s.month}, {"weekday", 0, 6, &s.weekday}}
	for i, b := range bounds {
		bits, err := parseField(fields[i], b.from, b.to)
		if err != nil {
			return s, fmt.Errorf("schedule %q: %s: %w", text, b.name, err)
		}
		*b.into = bits
	}
	s.anyDay, s.anyWeekday = strings.HasPrefix(fields[2], "*"), strings.HasPrefix(fields[4], "*")
	return s, nil
}

func parseField(text string, from, to int) (uint64, error) {
	var bits uint64
	for _, part := range strings.Split(text, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			var err error
			if step, err = strconv.Atoi(stepText); err != nil || step < 1 {
				return 0, fmt.Errorf("%q: the step is no positive number", part)
			}
		}
		low, high := from, to
		if span != "*" {
			lowText, highText, ranged := strings.Cut(span, "-")
			var err error
			if low, err = strconv.Atoi(lowText); err != nil {
				return 0, fmt.Errorf("%q is no number", part)
			}
			high = low
			if stepped {
				high = to
			}
			if ranged {
				if high, err = strconv.Atoi(highText); err != nil {
					return 0, fmt.Errorf("%q is no range", part)
				}
			}
		}
		if low < from || high > to || low > high {
			return 0, fmt.Errorf("%q is outside %d-%d", part, from, to)
		}
		for n := low; n <= high; n += step {
			bits |= 1 << n
		}
	}
	return bits, nil
}

// Next returns the first time after t that the schedule names, or the zero
// time when there is none within five years.
func (s Schedule) Next(t time.Time) time.Time {
	if s.every > 0 {
		return t.Add(s.every)
	}
	at := t.Truncate(time.Minute).Add(time.Minute)
	for end := at.AddDate(5, 0, 0); at.Before(end); {
		if s.month&(1<<int(at.Month())) == 0 || !s.dayMatches(at) {
			at = time.Date(at.Year(), at.Month(), at.Day()+1, 0, 0, 0, 0, at.Location())
			continue
		}
		if s.hour&(1<<at.Hour()) == 0 {
			at = at.Truncate(time.Hour).Add(time.Hour)
			continue
		}
		if s.minute&(1<<at.Minute()) != 0 {
			return at
		}
		at = at.Add(time.Minute)
	}
	return time.Time{}
}

// dayMatches follows cron: with both fields given, either one suffices.
func (s Schedule) dayMatches(t time.Time) bool {
	day, weekday := s.day&(1<<t.Day()) != 0, s.weekday&(1<<int(t.Weekday())) != 0
	if s.anyDay || s.anyWeekday {
		return day && weekday
	}
	return day || weekday
}
