package agent

import (
	"bufio"
	"context"
	"net"
	"slices"
	"testing"
	"time"
)

// greeter answers every connection with its name.
func greeter(t *testing.T, name string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(name + "\n"))
			conn.Close()
		}
	}()
	return listener
}

func TestTheLossOfAServerIsOutlived(t *testing.T) {
	first, second := greeter(t, "first"), greeter(t, "second")
	defer second.Close()
	b := &Balancer{}
	b.Set([]string{first.Addr().String()})
	b.Set([]string{second.Addr().String(), first.Addr().String()})
	if b.Servers()[0] != first.Addr().String() {
		t.Error("the server in use lost its place")
	}
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := port.Addr().String()
	port.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := b.Serve(ctx, address); err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		return line
	}
	if got := ask(); got != "first\n" {
		t.Errorf("got %q", got)
	}
	first.Close()
	if got := ask(); got != "second\n" {
		t.Errorf("after the loss: %q", got)
	}
	b.Set(nil)
	if !slices.Contains(b.Servers(), second.Addr().String()) {
		t.Error("an empty answer emptied the list")
	}
}
