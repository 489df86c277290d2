// Package process keeps child processes running and ends them.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"opstella.invalid/lab/rke2/internal/log"
)

// logLimit bounds a child's log file, in bytes; past it the file starts anew.
const logLimit = 8 << 20

// Spec is a program to keep running.
type Spec struct {
	Name string
	Path string
	Args []string
	Env  []string // added to a minimal environment
	// Patience is how long the program may take to end when asked to.
	Patience time.Duration
	LogDir   string
}

// Child is a program that is started again whenever it ends, until Stop.
type Child struct {
	spec   Spec
	cancel context.CancelFunc
	done   chan struct{}
}

// starter runs every fork on one operating-system thread that never ends:
// a child asked to die with its parent dies with the *thread* that made it.
var starter = sync.OnceValue(func() chan func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// Start begins to keep spec running.
func Start(spec Spec) *Child {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Child{spec: spec, cancel: cancel, done: make(chan struct{})}
	go c.run(ctx)
	return c
}

// Stop asks the program to end, kills it after its patience, and waits.
func (c *Child) Stop() {
	if c == nil {
		return
	}
	c.cancel()
	<-c.done
}

func (c *Child) run(ctx context.Context) {
	defer close(c.done)
	pause := time.Second
	for ctx.Err() == nil {
		began := time.Now()
		var mark int64
		if info, err := os.Stat(c.logPath()); err == nil {
			mark = info.Size()
		}
		err := c.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			pause = time.Second
		}
		log.Error("%s ended (%v), starting it again in %s; last lines of %s:\n%s", c.spec.Name, err, pause, c.logPath(), tail(c.logPath(), mark, 12))
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, 10*time.Second)
	}
}

func (c *Child) logPath() string { return filepath.Join(c.spec.LogDir, c.spec.Name+".log") }

func (c *Child) once(ctx context.Context) error {
	if err := os.MkdirAll(c.spec.LogDir, 0o755); err != nil {
		return err
	}
	mode := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if info, err := os.Stat(c.logPath()); err == nil && info.Size() > logLimit {
		mode |= os.O_TRUNC
	}
	out, err := os.OpenFile(c.logPath(), mode, 0o640)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(c.spec.Path, c.spec.Args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}, c.spec.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	starter() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	watch := time.NewTicker(time.Minute)
	defer watch.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-watch.C:
			if info, err := out.Stat(); err == nil && info.Size() > logLimit {
				// The file is open for appending, so the child goes on at its new end.
				_ = out.Truncate(0)
			}
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-ended:
			case <-time.After(c.spec.Patience):
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				<-ended
			}
			return ctx.Err()
		}
	}
}

// tail returns the last lines of what a file holds from mark (bytes) on, or
// of all of it when it has been cut since.
func tail(path string, mark int64, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if int64(len(data)) > mark {
		data = data[mark:]
	}
	data = bytes.TrimRight(data, "\n")
	at := len(data)
	for ; lines > 0 && at > 0; lines-- {
		at = max(bytes.LastIndexByte(data[:at], '\n'), 0)
	}
	return string(data[at:])
}

// Run executes a program to its end with a bound, returning its output.
func Run(ctx context.Context, limit time.Duration, input []byte, path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("no end after %s", limit)
		}
		return out, fmt.Errorf("%s: %w: %s", filepath.Base(path), err, bytes.TrimSpace(out))
	}
	return out, nil
}
