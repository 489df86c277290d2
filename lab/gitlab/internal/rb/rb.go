// Package rb reads the part of Ruby that gitlab.rb consists of: assignments of literals.
//
// GitLab evaluates gitlab.rb as a Ruby program. This reader takes comments, `external_url 'x'` and its
// kin, and `section['key']… = literal`, where a literal is a string, a number, true, false, nil, a
// symbol, an array or a hash. Everything else is an error that says where; so is, as in GitLab, a
// section that does not exist.
package rb

import (
	"fmt"
	"strconv"
	"strings"
)

// File holds what a gitlab.rb sets. Values are string, int64, float64, bool, nil, []any or map[string]any.
type File struct {
	Calls    map[string]any            // external_url and its kin
	Sections map[string]map[string]any // section to key path, joined by "/", to value
}

// Error says what is wrong in which line.
type Error struct {
	Path string
	Line int
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Text) }

// Lookup returns section['key']['key'…].
func (f *File) Lookup(section string, keys ...string) (any, bool) {
	value, ok := f.Sections[section][strings.Join(keys, "/")]
	if ok || len(keys) < 2 {
		return value, ok
	}
	// section['a'] = { 'b' => … } says the same as section['a']['b'] = …
	outer, ok := f.Sections[section][keys[0]]
	for _, key := range keys[1:] {
		inner, is := outer.(map[string]any)
		if !is {
			return nil, false
		}
		outer, ok = inner[key]
	}
	return outer, ok
}

type reader struct {
	path  string
	text  string
	at    int
	line  int
	depth int // of brackets: newlines mean nothing inside
}

// Parse reads the text of a gitlab.rb.
func Parse(path, text string) (*File, error) {
	r := &reader{path: path, text: text, line: 1}
	file := &File{Calls: map[string]any{}, Sections: map[string]map[string]any{}}
	for {
		r.space(true)
		if r.at >= len(r.text) {
			return file, nil
		}
		if err := r.statement(file); err != nil {
			return nil, err
		}
	}
}

func (r *reader) fail(format string, arguments ...any) error {
	return &Error{r.path, r.line, fmt.Sprintf(format, arguments...)}
}

func (r *reader) peek() byte {
	if r.at < len(r.text) {
		return r.text[r.at]
	}
	return 0
}

// space skips blanks and comments, and newlines too where they mean nothing.
func (r *reader) space(newlines bool) {
	for r.at < len(r.text) {
		switch c := r.text[r.at]; {
		case c == '\n' && (newlines || r.depth > 0):
			r.line++
			r.at++
		case c == ' ' || c == '\t' || c == '\r':
			r.at++
		case c == '#':
			for r.at < len(r.text) && r.text[r.at] != '\n' {
				r.at++
			}
		default:
			return
		}
	}
}

func letter(c byte) bool { return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }

func (r *reader) name() string {
	start := r.at
	for r.at < len(r.text) && (letter(r.text[r.at]) || r.at > start && digit(r.text[r.at])) {
		r.at++
	}
	return r.text[start:r.at]
}

func (r *reader) statement(file *File) error {
	name := r.name()
	if name == "" {
		return r.fail("expected a setting, found %q", r.rest())
	}
	line := r.line
	var keys []string
	for r.peek() == '[' {
		r.at++
		r.depth++
		r.space(false)
		key, err := r.value()
		if err != nil {
			return err
		}
		text, ok := key.(string)
		if !ok {
			return r.fail("the key in %s[…] is not a string", name)
		}
		r.space(false)
		if r.peek() != ']' {
			return r.fail("missing ] after %s['%s'", name, text)
		}
		r.at++
		r.depth--
		keys = append(keys, text)
	}
	r.space(false)
	switch {
	case len(keys) == 0 && calls[name]:
		bracket := r.peek() == '('
		if bracket {
			r.at++
			r.depth++
			r.space(false)
		} else if r.peek() == '=' {
			return r.fail("%s is a call and takes no =: write %s '…'", name, name)
		}
		value, err := r.value()
		if err != nil {
			return err
		}
		if bracket {
			r.space(false)
			if r.peek() != ')' {
				return r.fail("missing ) after %s(…", name)
			}
			r.at++
			r.depth--
		}
		file.Calls[name] = value
	case r.peek() == '=' && !strings.HasPrefix(r.text[r.at:], "=="):
		r.at++
		r.space(false)
		value, err := r.value()
		if err != nil {
			return err
		}
		if !sections[name] {
			return &Error{r.path, line, fmt.Sprintf("Reading unsupported config value %s.", name)}
		}
		if len(keys) == 0 {
			hash, ok := value.(map[string]any)
			if !ok {
				return &Error{r.path, line, fmt.Sprintf("%s is a section: write %s['key'] = …", name, name)}
			}
			for key, one := range hash {
				file.set(name, key, one)
			}
		} else {
			file.set(name, strings.Join(keys, "/"), value)
		}
	case len(keys) == 0 && !sections[name]:
		return r.fail("undefined local variable or method `%s'", name)
	default:
		return r.fail("expected = after %s, found %q", name, r.rest())
	}
	r.space(false)
	if c := r.peek(); c != 0 && c != '\n' && c != ';' {
		return r.fail("unexpected %q after the value of %s (a quote that is not closed?)", r.rest(), name)
	} else if c == ';' {
		r.at++
	}
	return nil
}

func (f *File) set(section, key string, value any) {
	if f.Sections[section] == nil {
		f.Sections[section] = map[string]any{}
	}
	f.Sections[section][key] = value
}

// rest is the beginning of what is still to be read, for messages; never a value's whole text.
func (r *reader) rest() string {
	text, _, _ := strings.Cut(r.text[r.at:], "\n")
	if len(text) > 12 {
		text = text[:12] + "…"
	}
	return text
}

func (r *reader) value() (any, error) {
	switch c := r.peek(); {
	case c == '\'' || c == '"':
		return r.quoted()
	case c == '[':
		return r.array()
	case c == '{':
		return r.hash()
	case c == ':' && r.at+1 < len(r.text) && letter(r.text[r.at+1]):
		r.at++
		return r.name(), nil
	case digit(c) || c == '-' || c == '+':
		return r.number()
	case letter(c):
		switch name := r.name(); name {
		case "true":
			return true, nil
		case "false":
			return false, nil
		case "nil":
			return nil, nil
		default:
			return nil, r.fail("undefined local variable or method `%s' (this double reads literals only)", name)
		}
	case c == 0 || c == '\n':
		return nil, r.fail("a value is missing")
	}
	return nil, r.fail("%q is no literal that this double reads: strings, numbers, true, false, nil, arrays, hashes", r.rest())
}

func (r *reader) quoted() (string, error) {
	quote, line := r.text[r.at], r.line
	var out strings.Builder
	for r.at++; r.at < len(r.text); r.at++ {
		c := r.text[r.at]
		switch {
		case c == quote:
			r.at++
			return out.String(), nil
		case c == '\\' && r.at+1 < len(r.text):
			r.at++
			next := r.text[r.at]
			if quote == '\'' && next != '\'' && next != '\\' {
				out.WriteByte('\\')
			} else if escaped, ok := map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', 's': ' ', 'e': 27}[next]; ok && quote == '"' {
				next = escaped
			}
			out.WriteByte(next)
		case c == '#' && quote == '"' && r.at+1 < len(r.text) && r.text[r.at+1] == '{':
			return "", r.fail("this double does not evaluate #{…} in a string; use single quotes for a literal one")
		default:
			if c == '\n' {
				r.line++
			}
			out.WriteByte(c)
		}
	}
	return "", &Error{r.path, line, fmt.Sprintf("unterminated string meets end of file: the %c opened here is not closed", quote)}
}

func (r *reader) number() (any, error) {
	start := r.at
	for r.at < len(r.text) && (digit(r.text[r.at]) || strings.IndexByte("+-._eExabcdefABCDEF", r.text[r.at]) >= 0) {
		r.at++
	}
	text := strings.ReplaceAll(r.text[start:r.at], "_", "")
	if whole, err := strconv.ParseInt(text, 0, 64); err == nil {
		return whole, nil
	}
	if real, err := strconv.ParseFloat(text, 64); err == nil {
		return real, nil
	}
	return nil, r.fail("%q is not a number", text)
}

func (r *reader) array() (any, error) {
	line := r.line
	r.at++
	r.depth++
	list := []any{}
	for {
		r.space(false)
		if r.peek() == ']' {
			r.at++
			r.depth--
			return list, nil
		}
		if r.at >= len(r.text) {
			return nil, &Error{r.path, line, "the [ opened here is not closed"}
		}
		value, err := r.value()
		if err != nil {
			return nil, err
		}
		list = append(list, value)
		r.space(false)
		if r.peek() == ',' {
			r.at++
		} else if r.at >= len(r.text) {
			return nil, &Error{r.path, line, "the [ opened here is not closed"}
		} else if r.peek() != ']' {
			return nil, r.fail("expected , or ] in an array, found %q", r.rest())
		}
	}
}

func (r *reader) hash() (any, error) {
	line := r.line
	r.at++
	r.depth++
	hash := map[string]any{}
	for {
		r.space(false)
		if r.peek() == '}' {
			r.at++
			r.depth--
			return hash, nil
		}
		if r.at >= len(r.text) {
			return nil, &Error{r.path, line, "the { opened here is not closed"}
		}
		var key string
		var err error
		if letter(r.peek()) { // key: value
			key = r.name()
			if r.peek() != ':' {
				return nil, r.fail("expected : after the key %s", key)
			}
			r.at++
		} else {
			var any any
			if any, err = r.value(); err != nil {
				return nil, err
			}
			key = fmt.Sprint(any)
			if r.peek() == ':' { // "key": value
				r.at++
			} else {
				r.space(false)
				if !strings.HasPrefix(r.text[r.at:], "=>") {
					return nil, r.fail("expected => after the key %s", key)
				}
				r.at += 2
			}
		}
		r.space(false)
		value, err := r.value()
		if err != nil {
			return nil, err
		}
		hash[key] = value
		r.space(false)
		if r.peek() == ',' {
			r.at++
		} else if r.at >= len(r.text) {
			return nil, &Error{r.path, line, "the { opened here is not closed"}
		} else if r.peek() != '}' {
			return nil, r.fail("expected , or } in a hash, found %q", r.rest())
		}
	}
}
