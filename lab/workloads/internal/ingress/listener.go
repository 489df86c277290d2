package ingress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
	"k8s.io/klog/v2"
)

// Port is a NodePort to listen on.
type Port struct {
	// NodePort is the TCP port on the node's address.
	NodePort int32
	// Service is "namespace/name port".
	Service string
	// EntryPoint is Traefik's, or nil for the port of any other Service.
	EntryPoint *EntryPoint
}

// Frontend listens on NodePorts and answers from the state it was given last.
type Frontend struct {
	address, node string
	mu            sync.Mutex
	state         *State
	open          map[int32]*listening
}

// State is what the frontend answers from. It is never changed, only replaced.
type State struct {
	Options      Options
	Routes       []Route
	Certificates *Certificates
	Ports        []Port
}

type listening struct {
	listener net.Listener
	plain    *http.Server
	secure   *http.Server
}

const (
	// firstByteTimeout bounds the wait for a client's first byte.
	firstByteTimeout = 15 * time.Second
	idleTimeout      = 60 * time.Second
	// tlsHandshakeRecord is the first byte of every TLS connection.
	tlsHandshakeRecord = 0x16
)

// NewFrontend listens on nothing yet. address is the node's IP address.
func NewFrontend(address, node string) *Frontend {
	return &Frontend{address: address, node: node, open: map[int32]*listening{}, state: &State{}}
}

func (f *Frontend) current() *State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// Apply replaces the state: opens the ports that are new and closes those that
// are gone, with their connections. It returns an error naming each port that
// could not be opened; call it again to try again.
func (f *Frontend) Apply(state *State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = state
	wanted := map[int32]bool{}
	var failures []error
	for _, port := range state.Ports {
		wanted[port.NodePort] = true
		if f.open[port.NodePort] != nil {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort(f.address, fmt.Sprint(port.NodePort)))
		if err != nil {
			failures = append(failures, fmt.Errorf("NodePort %d of service %s: %w", port.NodePort, port.Service, err))
			continue
		}
		klog.InfoS("listening", "address", l.Addr(), "service", port.Service)
		f.open[port.NodePort] = f.serve(l, port.NodePort)
	}
	for number, l := range f.open {
		if !wanted[number] {
			klog.InfoS("closing: no ready endpoint, or no such NodePort any more", "address", l.listener.Addr())
			l.close()
			delete(f.open, number)
		}
	}
	return errors.Join(failures...)
}

// Close closes every port.
func (f *Frontend) Close() {
	_ = f.Apply(&State{})
}

func (l *listening) close() {
	_ = l.listener.Close()
	_ = l.plain.Close()
	_ = l.secure.Close()
}

// portOf finds what a NodePort stands for at this moment, nil when it closes.
func (s *State) portOf(number int32) *Port {
	for i := range s.Ports {
		if s.Ports[i].NodePort == number {
			return &s.Ports[i]
		}
	}
	return nil
}

func (f *Frontend) serve(l net.Listener, number int32) *listening {
	plain, secure := newQueue(l.Addr()), newQueue(l.Addr())
	handler := func(overTLS bool) *http.Server {
		return &http.Server{
			Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.answer(w, r, number, overTLS) }),
			ReadHeaderTimeout: firstByteTimeout,
			IdleTimeout:       idleTimeout,
			// A client that breaks off a handshake is no news of this process.
			ErrorLog: log.New(io.Discard, "", 0),
		}
	}
	out := &listening{listener: l, plain: handler(false), secure: handler(true)}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			certificates := f.current().Certificates
			if certificates == nil {
				return nil, errors.New("no certificate is known yet")
			}
			return certificates.For(hello.ServerName), nil
		},
	}
	go func() { _ = out.plain.Serve(plain) }()
	go func() { _ = out.secure.Serve(secure) }()
	go func() {
		defer plain.Close()
		defer secure.Close()
		for {
			connection, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				port := f.current().portOf(number)
				if port == nil || port.EntryPoint == nil {
					f.line(connection, port)
					return
				}
				connection = port.EntryPoint.proxied(connection)
				// Traefik tells TLS from HTTP by the first byte, on every entry point.
				buffered := &peeked{Conn: connection, reader: bufio.NewReaderSize(connection, 512)}
				_ = connection.SetReadDeadline(time.Now().Add(firstByteTimeout))
				first, err := buffered.reader.Peek(1)
				_ = connection.SetReadDeadline(time.Time{})
				switch {
				case err != nil:
					_ = connection.Close()
				case first[0] == tlsHandshakeRecord:
					secure.put(tls.Server(buffered, config))
				default:
					plain.put(buffered)
				}
			}()
		}
	}()
	return out
}

// proxied is the connection as the entry point takes it: of a trusted address
// whose it is by its PROXY header, if it has one; the header of any other
// address is read and ignored, as with the real Traefik.
func (e *EntryPoint) proxied(connection net.Conn) net.Conn {
	if e.Trusted == nil {
		return connection
	}
	policy := proxyproto.IGNORE
	if peer, err := netip.ParseAddrPort(connection.RemoteAddr().String()); err == nil {
		for _, network := range e.Trusted {
			if network.Contains(peer.Addr().Unmap()) {
				policy = proxyproto.USE
			}
		}
	}
	return proxyproto.NewConn(connection, proxyproto.WithPolicy(policy))
}

// line answers on the NodePort of a Service that is not Traefik's.
func (f *Frontend) line(connection net.Conn, port *Port) {
	defer connection.Close()
	if port == nil {
		return
	}
	_ = connection.SetDeadline(time.Now().Add(firstByteTimeout))
	_, _ = fmt.Fprintf(connection, "double of kube-proxy on %s: service %s has ready endpoints, but no process runs behind it\n",
		f.node, port.Service)
}

// answer answers an HTTP request as Traefik would route it.
func (f *Frontend) answer(w http.ResponseWriter, r *http.Request, number int32, overTLS bool) {
	state := f.current()
	port := state.portOf(number)
	w.Header().Set("Server", "double of traefik")
	if port == nil || port.EntryPoint == nil {
		http.Error(w, "this port closes", http.StatusServiceUnavailable)
		return
	}
	entryPoint := port.EntryPoint
	if redirect := entryPoint.Redirect; redirect != nil && !overTLS {
		to, status := state.Options.target(redirect, r)
		http.Redirect(w, r, to, status)
		return
	}
	if r.URL.Path == "/ping" && state.Options.Ping == entryPoint.Name {
		_, _ = io.WriteString(w, "OK")
		return
	}
	host := hostOf(r)
	route := Match(&state.Options, state.Routes, entryPoint, host, r.URL.Path, overTLS)
	switch {
	case route == nil:
		http.NotFound(w, r)
	case !route.Backend.Ready:
		http.Error(w, "no available server", http.StatusServiceUnavailable)
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		client, _, _ := net.SplitHostPort(r.RemoteAddr)
		_, _ = fmt.Fprintf(w, "double of traefik on %s\nhost: %s\nservice: %s/%s:%s\nclient: %s\n",
			f.node, host, route.Backend.Namespace, route.Backend.Service, route.Backend.Port, client)
	}
}

// peeked is a connection of which the first byte was looked at.
type peeked struct {
	net.Conn
	reader *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.reader.Read(b) }

// queue is a net.Listener of connections that another listener accepted.
type queue struct {
	address net.Addr
	in      chan net.Conn
	ctx     context.Context
	end     context.CancelFunc
}

func newQueue(address net.Addr) *queue {
	ctx, end := context.WithCancel(context.Background())
	return &queue{address: address, in: make(chan net.Conn), ctx: ctx, end: end}
}

func (q *queue) put(c net.Conn) {
	select {
	case q.in <- c:
	case <-q.ctx.Done():
		_ = c.Close()
	}
}

// Accept waits for the next connection.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.in:
		return c, nil
	case <-q.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (q *queue) Close() error {
	q.end()
	return nil
}

// Addr is the address of the listener behind.
func (q *queue) Addr() net.Addr { return q.address }
