package ingress

import (
	"fmt"
	"sort"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// controllerName is the controller of Traefik's IngressClass.
const controllerName = "traefik.io/ingress-controller"

const (
	annotationClass       = "kubernetes.io/ingress.class"
	annotationEntryPoints = "traefik.ingress.kubernetes.io/router.entrypoints"
	annotationTLS         = "traefik.ingress.kubernetes.io/router.tls"
)

// Backend is the Service behind a route.
type Backend struct {
	Namespace, Service, Port string
	// Ready tells whether an endpoint would answer.
	Ready bool
}

// Route is one of Traefik's HTTP routers.
type Route struct {
	// Host is empty for any host, and may start with "*.".
	Host string
	Path string
	// Exact is set for a path that has to be equal; else it is a prefix.
	Exact   bool
	Backend Backend
	// EntryPoints is empty for all of them.
	EntryPoints []string
	TLS         bool
	priority    int
}

// Resolve finds a Service's port; ok is false when there is no such Service or port.
type Resolve func(namespace string, backend networkingv1.IngressServiceBackend) (b Backend, ok bool)

// processed tells whether Traefik takes an Ingress.
func processed(o *Options, ingress *networkingv1.Ingress, classes []*networkingv1.IngressClass) bool {
	if name := ingress.Spec.IngressClassName; name != nil {
		for _, class := range classes {
			if class.Spec.Controller == controllerName && class.Name == *name &&
				(o.IngressClass == "" || o.IngressClass == *name) {
				return true
			}
		}
		return false
	}
	annotation := ingress.Annotations[annotationClass]
	return annotation == o.IngressClass || o.IngressClass == "" && annotation == "traefik"
}

// Routes turns Ingresses into routes, the one to try first at the front. As
// with Traefik, the longer rule wins, and a rule without a Service (or,
// unless empty Services are allowed, without endpoints) is no route at all.
func Routes(o *Options, ingresses []*networkingv1.Ingress, resolve Resolve) []Route {
	var routes []Route
	for _, ingress := range ingresses {
		var entryPoints []string
		if text := ingress.Annotations[annotationEntryPoints]; text != "" {
			for _, name := range strings.Split(text, ",") {
				entryPoints = append(entryPoints, strings.ToLower(strings.TrimSpace(name)))
			}
		}
		add := func(route Route, service *networkingv1.IngressServiceBackend) {
			if service == nil {
				return
			}
			backend, ok := resolve(ingress.Namespace, *service)
			if !ok || !backend.Ready && !o.AllowEmptyServices {
				return
			}
			route.Backend, route.EntryPoints = backend, entryPoints
			route.TLS = strings.EqualFold(ingress.Annotations[annotationTLS], "true")
			routes = append(routes, route)
		}
		if d := ingress.Spec.DefaultBackend; d != nil {
			add(Route{priority: -1}, d.Service)
		}
		for _, rule := range ingress.Spec.Rules {
			if rule.HTTP == nil {
				continue
			}
			for _, p := range rule.HTTP.Paths {
				route := Route{
					Host: strings.ToLower(rule.Host), Path: p.Path,
					Exact: p.PathType != nil && *p.PathType == networkingv1.PathTypeExact,
				}
				route.priority = len(route.rule())
				add(route, p.Backend.Service)
			}
		}
	}
	sort.SliceStable(routes, func(i, j int) bool {
		a, b := routes[i], routes[j]
		if a.priority != b.priority {
			return a.priority > b.priority
		}
		// Equal lengths: a fixed order, so that every node answers alike.
		return a.Host+a.Path+a.Backend.Namespace+a.Backend.Service < b.Host+b.Path+b.Backend.Namespace+b.Backend.Service
	})
	return routes
}

// rule is the rule as Traefik writes it; its length is the route's priority.
func (r *Route) rule() string {
	var parts []string
	if r.Host != "" {
		parts = append(parts, fmt.Sprintf("Host(%q)", r.Host))
	}
	switch {
	case r.Path == "":
	case r.Exact:
		parts = append(parts, fmt.Sprintf("Path(%q)", r.Path))
	default:
		parts = append(parts, fmt.Sprintf("PathPrefix(%q)", r.Path))
	}
	return strings.Join(parts, " && ")
}

// Match returns the route of a request, or nil. overTLS tells how it came.
func Match(o *Options, routes []Route, e *EntryPoint, host, path string, overTLS bool) *Route {
	for i := range routes {
		r := &routes[i]
		if (r.TLS || e.TLS) == overTLS && r.on(e.Name) && r.host(host) && r.path(path, o.StrictPrefix) {
			return r
		}
	}
	return nil
}

func (r *Route) on(entryPoint string) bool {
	for _, name := range r.EntryPoints {
		if name == entryPoint {
			return true
		}
	}
	return len(r.EntryPoints) == 0
}

func (r *Route) host(host string) bool {
	if parent, ok := strings.CutPrefix(r.Host, "*."); ok {
		_, rest, found := strings.Cut(host, ".")
		return found && rest == parent
	}
	return r.Host == "" || r.Host == host
}

func (r *Route) path(path string, strict bool) bool {
	switch {
	case r.Path == "":
		return true
	case r.Exact:
		return path == r.Path
	case strict && r.Path != "/":
		prefix := strings.TrimSuffix(r.Path, "/")
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	default:
		return strings.HasPrefix(path, r.Path)
	}
}
