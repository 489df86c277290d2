package main

import (
	"archive/tar"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"opstella.dev/lab/gitlab/internal/site"
)

// Places of the real package; those below data hold what the double needs.
const (
	etc     = "/etc/gitlab"
	data    = "/var/opt/gitlab"
	applied = data + "/double/site.json"
	downs   = data + "/double/down"
	hashes  = data + "/double/root-password"
	unit    = "gitlab-runsvdir.service"
	label   = "GitLab double (opstella lab)"
)

// services are those whose state gitlab-ctl shows; the double runs them in one process.
var services = []string{"gitaly", "gitlab-workhorse", "nginx", "postgresql", "prometheus", "puma", "redis", "sidekiq"}

func control(arguments []string) error {
	if len(arguments) == 0 {
		return usage()
	}
	if os.Geteuid() != 0 {
		return errors.New("gitlab-ctl must be run as root")
	}
	name := ""
	if len(arguments) > 1 {
		name = arguments[1]
	}
	if name != "" && !known(name) && arguments[0] != "backup-etc" {
		return fmt.Errorf("%s: no such service; there are %s", name, strings.Join(services, ", "))
	}
	switch arguments[0] {
	case "reconfigure":
		return reconfigure()
	case "status":
		return status(name)
	case "start", "restart", "hup", "once":
		if _, err := load(); err != nil {
			return err
		}
		if err := mark(name, false); err != nil {
			return err
		}
		action := "restart"
		if arguments[0] == "start" {
			action = "start"
		}
		if name != "" && active() {
			action = "reload"
		}
		if err := systemctl(action, unit); err != nil {
			return err
		}
		return status(name)
	case "stop", "kill":
		if name == "" {
			return systemctl("stop", unit)
		}
		if err := mark(name, true); err != nil {
			return err
		}
		if active() {
			if err := systemctl("reload", unit); err != nil {
				return err
			}
		}
		fmt.Printf("ok: down: %s: 0s, normally up\n", name)
		return nil
	case "tail":
		command := exec.Command("journalctl", "--unit", unit, "--lines", "50", "--follow")
		command.Stdout, command.Stderr = os.Stdout, os.Stderr
		return command.Run()
	case "backup-etc":
		return backupEtc()
	case "service-list":
		for _, one := range services {
			fmt.Println(one + "*")
		}
		return nil
	case "help", "--help", "-h":
		return usage()
	}
	return fmt.Errorf("%s: unknown command of this double; try gitlab-ctl help", arguments[0])
}

func usage() error {
	fmt.Println("gitlab-ctl of the " + label + `: command (subcommand)
  reconfigure            check gitlab.rb and apply it
  status|start|stop|restart [SERVICE]
  tail                   follow the log
  backup-etc             archive /etc/gitlab
  service-list`)
	return nil
}

func known(name string) bool {
	for _, one := range services {
		if one == name {
			return true
		}
	}
	return false
}

func systemctl(arguments ...string) error {
	out, err := exec.Command("systemctl", arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %s", strings.Join(arguments, " "), strings.TrimSpace(string(out)))
	}
	return nil
}

func active() bool { return exec.Command("systemctl", "--quiet", "is-active", unit).Run() == nil }

func mark(name string, down bool) error {
	names := []string{name}
	if name == "" {
		names = services
	}
	if err := os.MkdirAll(downs, 0o755); err != nil {
		return err
	}
	for _, one := range names {
		path := filepath.Join(downs, one)
		if down {
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				return err
			}
		} else if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func isDown(name string) bool { _, err := os.Stat(filepath.Join(downs, name)); return err == nil }

// status prints what runit's sv prints, and fails when something is down.
func status(name string) error {
	names := services
	if name != "" {
		names = []string{name}
	}
	pid, since := 0, time.Duration(0)
	out, _ := exec.Command("systemctl", "show", "--property=MainPID,ExecMainStartTimestampMonotonic", unit).Output()
	for _, line := range strings.Split(string(out), "\n") {
		key, value, _ := strings.Cut(line, "=")
		number, _ := strconv.ParseInt(value, 10, 64)
		if key == "MainPID" {
			pid = int(number)
		} else if key == "ExecMainStartTimestampMonotonic" {
			since = uptime() - time.Duration(number)*time.Microsecond
		}
	}
	down := 0
	for _, one := range names {
		if pid != 0 && active() && !isDown(one) {
			fmt.Printf("run: %s: (pid %d) %ds\n", one, pid, int(since.Seconds()))
		} else {
			fmt.Printf("down: %s: 0s, normally up\n", one)
			down++
		}
	}
	if down > 0 {
		return exitStatus(6)
	}
	return nil
}

func uptime() time.Duration {
	text, _ := os.ReadFile("/proc/uptime")
	field, _, _ := strings.Cut(string(text), " ")
	seconds, _ := strconv.ParseFloat(field, 64)
	return time.Duration(seconds * float64(time.Second))
}

type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func load() (*site.Site, error) {
	text, err := os.ReadFile(applied)
	if err != nil {
		return nil, errors.New("not configured yet: write " + etc + "/gitlab.rb and run gitlab-ctl reconfigure")
	}
	one := &site.Site{}
	return one, json.Unmarshal(text, one)
}

// reconfigure checks everything before it changes anything, then restarts only what changed.
func reconfigure() error {
	fmt.Println(label + ": no Chef, no Rails, no PostgreSQL; checks gitlab.rb and listens where GitLab would")
	one, err := site.Load(etc)
	if err != nil {
		return fmt.Errorf("reconfigure failed, nothing was changed:\n%w", err)
	}
	for _, warning := range one.Warnings {
		fmt.Println("Warning: " + warning)
	}
	for _, folder := range []string{data, filepath.Dir(applied)} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	if err := rootPassword(one); err != nil {
		return err
	}
	if err := secrets(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(one, "", "  ")
	if err != nil {
		return err
	}
	before, _ := os.ReadFile(applied)
	changed := string(before) != string(text)
	if changed {
		if err := os.WriteFile(applied+".new", text, 0o600); err != nil {
			return err
		}
		if err := os.Rename(applied+".new", applied); err != nil {
			return err
		}
	}
	if err := mark("", false); err != nil {
		return err
	}
	if err := systemctl("enable", unit); err != nil {
		return err
	}
	switch {
	case !active():
		err = systemctl("restart", unit)
	case changed:
		err = systemctl("reload", unit)
	}
	if err != nil {
		return err
	}
	if err := answers(one); err != nil {
		return err
	}
	if changed {
		fmt.Println("Running handlers complete, 1/1 resources updated")
	}
	fmt.Println("gitlab Reconfigured!")
	return nil
}

// answers waits until every port that the configuration asks for is open.
func answers(one *site.Site) error {
	var ports []string
	if one.HTTPPort != "" {
		ports = append(ports, "localhost:"+one.HTTPPort)
	}
	if one.HTTPSPort != "" {
		ports = append(ports, "localhost:"+one.HTTPSPort)
	}
	if one.Prometheus != "" {
		_, port, _ := net.SplitHostPort(one.Prometheus)
		ports = append(ports, "localhost:"+port)
	}
	end := time.Now().Add(20 * time.Second)
	for _, address := range ports {
		for {
			connection, err := net.DialTimeout("tcp", address, time.Second)
			if err == nil {
				connection.Close()
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("%s does not answer: %w; is another program on that port? See journalctl -u %s", address, err, unit)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}

// rootPassword is set at the first reconfigure only, as in GitLab, which seeds its database then. Only a
// salted hash is kept; initial_root_password is written when store_initial_root_password says so.
func rootPassword(one *site.Site) error {
	if _, err := os.Stat(hashes); err == nil {
		return nil
	}
	password := os.Getenv("GITLAB_ROOT_PASSWORD")
	if password == "" {
		password = one.RootPassword
	}
	if password == "" {
		random := make([]byte, 33)
		rand.Read(random)
		password = base64.StdEncoding.EncodeToString(random)
	}
	if len(password) < 8 {
		return errors.New("the initial root password is shorter than 8 characters; GitLab would refuse it")
	}
	if one.StorePassword {
		text := "# WARNING: This value is valid only in the following conditions\n" +
			"#          1. If provided manually (either via `GITLAB_ROOT_PASSWORD` environment variable or via " +
			"`gitlab_rails['initial_root_password']` setting in `gitlab.rb`, it was provided before database was seeded.\n" +
			"#          2. Password hasn't been changed manually.\n\nPassword: " + password + "\n"
		if err := os.WriteFile(etc+"/initial_root_password", []byte(text), 0o600); err != nil {
			return err
		}
	}
	text, err := hashPassword(password)
	if err != nil {
		return err
	}
	return os.WriteFile(hashes, []byte(text), 0o600)
}

// secrets makes gitlab-secrets.json once: what a backup of GitLab is worthless without.
func secrets() error {
	path := etc + "/gitlab-secrets.json"
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	random := make([]byte, 64)
	rand.Read(random)
	text, err := json.MarshalIndent(map[string]any{
		"gitlab_rails": map[string]string{"secret_key_base": hex.EncodeToString(random[:32]), "db_key_base": hex.EncodeToString(random[32:])},
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func backupEtc() error {
	folder := etc + "/config_backup"
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	path := fmt.Sprintf("%s/gitlab_config_%d_%s.tar", folder, time.Now().Unix(), time.Now().Format("2006_01_02"))
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	archive := tar.NewWriter(file)
	err = filepath.WalkDir(etc, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name == folder {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		header, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		header.Name = strings.TrimPrefix(name, "/")
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		_, err = archive.Write(content)
		return err
	})
	if err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	fmt.Println("Configuration backup archive complete: " + path)
	return nil
}
