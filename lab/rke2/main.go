// Command rke2 is a double of RKE2 for the lab: it keeps RKE2's contract with
// an administrator (configuration, joining, files, services, commands) and
// runs the real control plane, but no containers. README.md says what it
// keeps and what it does not prove.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"opstella.invalid/lab/rke2/internal/agent"
	"opstella.invalid/lab/rke2/internal/config"
	"opstella.invalid/lab/rke2/internal/log"
	"opstella.invalid/lab/rke2/internal/server"
	"opstella.invalid/lab/rke2/internal/settings"
)

// version is the RKE2 release that this double stands in for; set when built.
var version = "v0.0.0"

const usage = `rke2 - double of Rancher Kubernetes Engine 2, for the lab

USAGE:
   rke2 server [OPTIONS]          run a server (reads /etc/rancher/rke2/config.yaml)
   rke2 agent [OPTIONS]           run an agent
   rke2 etcd-snapshot save|ls|delete|prune
   rke2 certificate check
   rke2 --version
`

func main() {
	if len(os.Args) < 2 {
		fmt.Print(usage)
		return
	}
	var err error
	switch command, args := os.Args[1], os.Args[2:]; command {
	case "server", "agent":
		err = run(command, args)
	case "etcd-snapshot":
		err = etcdSnapshot(args)
	case "certificate":
		err = certificate(args)
	case "--version", "-v", "version":
		fmt.Printf("rke2 version %s (double)\ngo version %s\n", version, runtime.Version())
	case "--help", "-h", "help":
		fmt.Print(usage)
	default:
		err = fmt.Errorf("No help topic for '%s'", command) //nolint:staticcheck // the real one's words
	}
	if err != nil {
		log.Fatal("%v", err)
	}
}

func run(command string, args []string) error {
	values, err := config.Parse(command, args)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("rke2 %s must be run as root", command)
	}
	s, err := settings.Resolve(command, values)
	if err != nil {
		return err
	}
	log.Info("Starting rke2 %s (double): node %s at %s", version, s.NodeName, s.NodeIP)
	debug.SetGCPercent(50)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if s.Server && s.Values.Bool("cluster-reset") {
		return server.Reset(ctx, s, version)
	}
	// An API server or a join may hang in a call; the end must come anyway.
	context.AfterFunc(ctx, func() {
		time.Sleep(9 * time.Second)
		log.Warn("Not all parts ended in time, leaving")
		os.Exit(1)
	})
	var end func()
	if s.Server {
		v, err := server.Start(ctx, s, version)
		if err != nil {
			return ended(ctx, err)
		}
		end = v.Stop
	} else {
		programs, err := agent.Unpack(s)
		if err != nil {
			return err
		}
		n, err := agent.Start(ctx, s, version, programs, s.ServerURL, s.Token)
		if err != nil {
			return ended(ctx, err)
		}
		end = n.Stop
	}
	log.Info("rke2 %s is up and running", command)
	notify("READY=1\nSTATUS=rke2 " + command + " (double) is up and running")
	<-ctx.Done()
	notify("STOPPING=1")
	log.Info("Stopping")
	end()
	return nil
}

// ended turns a failure that only comes from being asked to stop into success.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// notify tells systemd, when it started this process, about its state.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		log.Warn("systemd could not be notified: %v", err)
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}
