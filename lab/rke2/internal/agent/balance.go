package agent

import (
	"context"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"opstella.invalid/lab/rke2/internal/log"
)

// Balancer forwards TCP connections from a loopback port to one of several
// servers, passing over those that do not answer. It is how an agent outlives
// the server it first joined.
type Balancer struct {
	mu      sync.Mutex
	servers []string // host:port, the one that worked last in front
}

// Set replaces the servers; the current favourite stays in front if it is
// among them. An empty list changes nothing.
func (b *Balancer) Set(servers []string) {
	if len(servers) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	fresh := slices.Clone(servers)
	slices.Sort(fresh)
	fresh = slices.Compact(fresh)
	if len(b.servers) > 0 {
		if at := slices.Index(fresh, b.servers[0]); at > 0 {
			fresh = slices.Concat(fresh[at:at+1], fresh[:at], fresh[at+1:])
		}
	}
	b.servers = fresh
}

// Servers returns the servers in the order in which they are tried.
func (b *Balancer) Servers() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.servers)
}

func (b *Balancer) dial(ctx context.Context) net.Conn {
	dialer := net.Dialer{Timeout: 3 * time.Second}
	for _, server := range b.Servers() {
		conn, err := dialer.DialContext(ctx, "tcp", server)
		if err != nil {
			continue
		}
		b.mu.Lock()
		if at := slices.Index(b.servers, server); at > 0 {
			log.Info("Load balancer on loopback: using %s instead of %s", server, b.servers[0])
			b.servers = slices.Concat(b.servers[at:at+1], b.servers[:at], b.servers[at+1:])
		}
		b.mu.Unlock()
		return conn
	}
	return nil
}

// Serve listens on address until ctx ends.
func (b *Balancer) Serve(ctx context.Context, address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				server := b.dial(ctx)
				if server == nil {
					return
				}
				defer server.Close()
				stop := context.AfterFunc(ctx, func() { client.Close(); server.Close() })
				defer stop()
				// A server that vanishes without a word is noticed by keep-alive.
				if tcp, ok := server.(*net.TCPConn); ok {
					_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3})
				}
				done := make(chan struct{}, 2)
				pipe := func(to, from net.Conn) { _, _ = io.Copy(to, from); done <- struct{}{} }
				go pipe(server, client)
				go pipe(client, server)
				<-done
			}()
		}
	}()
	return nil
}
