package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// DefaultFile is where RKE2 looks for its configuration.
const DefaultFile = "/etc/rancher/rke2/config.yaml"

// Values holds flag values by flag name; a flag that is not set is absent.
type Values map[string][]string

// String returns the last value of a flag, or fallback when it is not set.
func (v Values) String(name, fallback string) string {
	if all := v[name]; len(all) > 0 {
		return all[len(all)-1]
	}
	return fallback
}

// Bool returns a flag's truth, false when it is not set.
func (v Values) Bool(name string) bool { return v.String(name, "false") == "true" }

// List returns all values of a flag; values hold no commas to split at, except
// where splitCommas asks for it (RKE2 splits cluster-cidr, node-ip, tls-san …).
func (v Values) List(name string, splitCommas bool) []string {
	if !splitCommas {
		return v[name]
	}
	var out []string
	for _, value := range v[name] {
		for _, part := range strings.Split(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

// Parse merges, from weak to strong, environment, config.yaml with its
// drop-ins (config.yaml.d/*.yaml), and the command line of `rke2 command`.
// List flags of the command line are added to those of the file, as RKE2 does.
// All errors of a source are reported at once.
func Parse(command string, args []string) (Values, error) {
	line, err := parseArgs(command, args)
	if err != nil {
		return nil, err
	}
	file, given := line.String("config", ""), true
	if file == "" {
		if file = os.Getenv("RKE2_CONFIG_FILE"); file == "" {
			file, given = DefaultFile, false
		}
	}
	values, err := readFiles(command, file, given)
	if err != nil {
		return nil, err
	}
	for name, all := range line {
		if flags[name].kind == List {
			values[name] = append(values[name], all...)
		} else {
			values[name] = all
		}
	}
	for variable, name := range environment {
		if value, set := os.LookupEnv(variable); set && value != "" && values[name] == nil && flags[name].role&roleOf(command) != 0 {
			values[name] = []string{value}
		}
	}
	return values, nil
}

func roleOf(command string) role {
	if command == "agent" {
		return agent
	}
	return server
}

func parseArgs(command string, args []string) (Values, error) {
	values := Values{}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			return nil, fmt.Errorf("rke2 %s: unexpected argument %q: the command takes flags only", command, arg)
		}
		name, value, joined := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if long := short[name]; long != "" {
			name = long
		}
		f, known := flags[name]
		if !known || f.role&roleOf(command) == 0 {
			return nil, fmt.Errorf("flag provided but not defined: -%s", name)
		}
		if !joined {
			if f.kind == Bool {
				value = "true"
			} else if i+1 < len(args) {
				i++
				value = args[i]
			} else {
				return nil, fmt.Errorf("flag needs an argument: -%s", name)
			}
		}
		if err := check(f.kind, name, value); err != nil {
			return nil, err
		}
		values[name] = append(values[name], value)
	}
	return values, nil
}

// readFiles reads config.yaml and its drop-ins in the order of their names. A
// later value replaces an earlier one; a key that ends in + adds to it.
func readFiles(command, file string, mustExist bool) (Values, error) {
	values := Values{}
	drops, _ := filepath.Glob(file + ".d/*.yaml")
	more, _ := filepath.Glob(file + ".d/*.yml")
	drops = append(drops, more...)
	sort.Strings(drops)
	if _, err := os.Stat(file); err == nil || mustExist {
		drops = append([]string{file}, drops...)
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var problems []error
	for _, path := range drops {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		got, err := decode(command, path, data)
		problems = append(problems, err)
		for name, all := range got {
			if base, plus := strings.CutSuffix(name, "+"); plus {
				values[base] = append(values[base], all...)
			} else {
				values[name] = all
			}
		}
	}
	return values, errors.Join(problems...)
}

// decode turns one configuration file into values, keys ending in + kept.
func decode(command, path string, data []byte) (Values, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, fmt.Errorf("%s: not valid YAML: %w", path, err)
	}
	values := Values{}
	if len(document.Content) == 0 {
		return values, nil
	}
	root := document.Content[0]
	if root.Tag == "!!null" {
		return values, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: expected keys with values, one a line (key: value)", path, root.Line)
	}
	var problems []error
	fail := func(node *yaml.Node, format string, a ...any) {
		problems = append(problems, fmt.Errorf("%s:%d: %s", path, node.Line, fmt.Sprintf(format, a...)))
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, node := root.Content[i], root.Content[i+1]
		if node.Kind == yaml.AliasNode {
			node = node.Alias
		}
		if line, twice := seen[key.Value]; twice {
			fail(key, "key %q is there twice, first on line %d", key.Value, line)
			continue
		}
		seen[key.Value] = key.Line
		name := strings.TrimSuffix(key.Value, "+")
		if long := short[name]; long != "" {
			name = long
		}
		f, known := flags[name]
		switch {
		case !known:
			hint := ""
			if near := nearest(name); near != "" {
				hint = fmt.Sprintf("; did you mean %q?", near)
			}
			fail(key, "flag provided but not defined: -%s (no such key%s)", name, hint)
			continue
		case f.role&roleOf(command) == 0:
			fail(key, "flag provided but not defined: -%s (a key of rke2 server, which rke2 %s does not have)", name, command)
			continue
		}
		items := []*yaml.Node{node}
		if node.Kind == yaml.SequenceNode {
			if f.kind != List {
				fail(node, "key %q takes %s, not a list", name, f.kind)
				continue
			}
			items = node.Content
		}
		all := []string{}
		for _, item := range items {
			if item.Kind == yaml.AliasNode {
				item = item.Alias
			}
			if item.Kind != yaml.ScalarNode {
				fail(item, "key %q takes %s, not a nested structure", name, f.kind)
				continue
			}
			text, err := scalar(item)
			if err == nil {
				err = check(f.kind, name, text)
			}
			if err != nil {
				fail(item, "%v", err)
				continue
			}
			all = append(all, text)
		}
		stored := name
		if strings.HasSuffix(key.Value, "+") {
			stored += "+"
		}
		values[stored] = all
	}
	return values, errors.Join(problems...)
}

// scalar returns the text that RKE2 sees for a YAML scalar: it reads the value
// by its YAML type first, so that an unquoted 0600 arrives as 384.
func scalar(node *yaml.Node) (string, error) {
	switch node.Tag {
	case "!!null":
		return "", nil
	case "!!int":
		var n int64
		if err := node.Decode(&n); err != nil {
			return "", err
		}
		return strconv.FormatInt(n, 10), nil
	case "!!bool":
		var b bool
		if err := node.Decode(&b); err != nil {
			return "", err
		}
		return strconv.FormatBool(b), nil
	}
	return node.Value, nil
}

func check(kind Kind, name, value string) error {
	bad := func(err error) error {
		return fmt.Errorf("invalid value %q for flag -%s: %w; it takes %s", value, name, err, kind)
	}
	switch kind {
	case Bool:
		if value != "true" && value != "false" {
			return bad(errors.New("parse error"))
		}
	case Int:
		if _, err := strconv.Atoi(value); err != nil {
			return bad(errors.New("parse error"))
		}
	case Duration:
		if _, err := time.ParseDuration(value); err != nil {
			return bad(errors.New("parse error"))
		}
	}
	return nil
}
