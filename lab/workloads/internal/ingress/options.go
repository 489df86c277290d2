package ingress

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// EntryPoint is one of Traefik's listening ports, as its arguments configure it.
type EntryPoint struct {
	Name string
	// Port inside the pod, e.g. "8443"; empty when the arguments give none.
	Port string
	// TLS is set when routers without a TLS section of their own get one here.
	TLS bool
	// Trusted are the networks whose PROXY headers are believed; nil when the
	// entry point reads no header, which is then the beginning of a request.
	Trusted []netip.Prefix
	// Redirect is nil when the entry point redirects nothing.
	Redirect *Redirect
}

// Redirect sends every request of an entry point elsewhere.
type Redirect struct {
	// To is an entry point's name, or a port written as ":443".
	To        string
	Scheme    string
	Permanent bool
}

// Options is what the arguments of Traefik's container say.
type Options struct {
	EntryPoints map[string]*EntryPoint
	// Ingress and CRD tell which of the Kubernetes providers are on.
	Ingress, CRD bool
	// IngressClass limits the classes by name; empty takes every class of Traefik.
	IngressClass       string
	AllowEmptyServices bool
	StrictPrefix       bool
	// Ping names the entry point that answers /ping; empty for none.
	Ping string
}

// ChartDefaults are the options of Traefik's chart with no values given.
func ChartDefaults() Options {
	return Options{
		EntryPoints: map[string]*EntryPoint{
			"web":       {Name: "web", Port: "8000"},
			"websecure": {Name: "websecure", Port: "8443", TLS: true},
		},
		Ingress: true, CRD: true, AllowEmptyServices: true, Ping: "traefik",
	}
}

// ParseArguments reads Traefik's command line. Names are case-insensitive, as
// Traefik's own are; arguments without a meaning here are passed over. The
// chart always names its entry points: arguments that name none come from a
// stand-in that left them out, and add to the chart's defaults.
func ParseArguments(args []string) Options {
	o := ChartDefaults()
	for _, arg := range args {
		if strings.HasPrefix(strings.ToLower(strings.TrimLeft(arg, "-")), "entrypoints.") {
			o = Options{EntryPoints: map[string]*EntryPoint{}}
			break
		}
	}
	pingAt := "traefik"
	for _, arg := range args {
		name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		name = strings.ToLower(name)
		on := !hasValue || strings.EqualFold(value, "true")
		if rest, ok := strings.CutPrefix(name, "entrypoints."); ok {
			entryPoint, key, _ := strings.Cut(rest, ".")
			o.entryPoint(entryPoint).set(key, value, on)
			continue
		}
		// Any option of a provider switches it on.
		o.Ingress = o.Ingress || strings.HasPrefix(name, "providers.kubernetesingress.")
		o.CRD = o.CRD || strings.HasPrefix(name, "providers.kubernetescrd.")
		switch name {
		case "providers.kubernetesingress":
			o.Ingress = on
		case "providers.kubernetesingress.ingressclass":
			o.IngressClass = value
		case "providers.kubernetesingress.allowemptyservices":
			o.AllowEmptyServices = on
		case "providers.kubernetesingress.strictprefixmatching":
			o.StrictPrefix = on
		case "providers.kubernetescrd":
			o.CRD = on
		case "ping":
			if on {
				o.Ping = pingAt
			}
		case "ping.entrypoint":
			pingAt, o.Ping = strings.ToLower(value), strings.ToLower(value)
		}
	}
	return o
}

func (o *Options) entryPoint(name string) *EntryPoint {
	e := o.EntryPoints[name]
	if e == nil {
		e = &EntryPoint{Name: name}
		o.EntryPoints[name] = e
	}
	return e
}

func (e *EntryPoint) set(key, value string, on bool) {
	redirect := func() *Redirect {
		if e.Redirect == nil {
			e.Redirect = &Redirect{Scheme: "https", Permanent: true}
		}
		return e.Redirect
	}
	switch key {
	case "address":
		address, _, _ := strings.Cut(value, "/") // ":8443/tcp"
		if _, port, err := net.SplitHostPort(address); err == nil {
			e.Port = port
		}
	case "proxyprotocol.trustedips":
		e.Trusted = []netip.Prefix{}
		for _, text := range strings.Split(value, ",") {
			if prefix, err := netip.ParsePrefix(text); err == nil {
				e.Trusted = append(e.Trusted, prefix)
			} else if address, err := netip.ParseAddr(text); err == nil {
				e.Trusted = append(e.Trusted, netip.PrefixFrom(address, address.BitLen()))
			}
		}
	case "http.tls":
		e.TLS = on
	case "http.redirections.entrypoint.to":
		redirect().To = value
	case "http.redirections.entrypoint.scheme":
		redirect().Scheme = value
	case "http.redirections.entrypoint.permanent":
		redirect().Permanent = on
	default:
		if strings.HasPrefix(key, "http.tls.") {
			e.TLS = true
		}
	}
}

// target is the address and status of the redirect of one request. A redirect
// to an entry point's name goes to the port that this has inside the pod, as
// with the real Traefik: users reach another one, hence the charts' ":443".
func (o *Options) target(r *Redirect, request *http.Request) (string, int) {
	port, isPort := strings.CutPrefix(r.To, ":")
	if !isPort {
		port = ""
		if e := o.EntryPoints[strings.ToLower(r.To)]; e != nil {
			port = e.Port
		}
	}
	host := hostOf(request)
	if port != "" && !(r.Scheme == "https" && port == "443") && !(r.Scheme == "http" && port == "80") {
		host = net.JoinHostPort(host, port)
	}
	status := http.StatusFound
	switch get := request.Method == http.MethodGet; {
	case r.Permanent && get:
		status = http.StatusMovedPermanently
	case r.Permanent:
		status = http.StatusPermanentRedirect
	case !get:
		status = http.StatusTemporaryRedirect
	}
	return r.Scheme + "://" + host + request.URL.RequestURI(), status
}

func hostOf(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
