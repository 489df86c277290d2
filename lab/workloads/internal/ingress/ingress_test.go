package ingress

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func ptr[T any](v T) *T { return &v }

func ingress(name, host, path string, kind networkingv1.PathType, annotations map[string]string) *networkingv1.Ingress {
	return &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "n", Annotations: annotations},
		Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{
			Host: host,
			IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
				Paths: []networkingv1.HTTPIngressPath{{
					Path: path, PathType: &kind,
					Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
						Name: name, Port: networkingv1.ServiceBackendPort{Number: 80},
					}},
				}},
			}},
		}}},
	}
}

// resolveAll knows every Service but "missing"; "empty" has no endpoints.
func resolveAll(namespace string, b networkingv1.IngressServiceBackend) (Backend, bool) {
	return Backend{Namespace: namespace, Service: b.Name, Ready: b.Name != "empty"}, b.Name != "missing"
}

func TestMatch(t *testing.T) {
	prefix, exact := networkingv1.PathTypePrefix, networkingv1.PathTypeExact
	o := ChartDefaults()
	routes := Routes(&o, []*networkingv1.Ingress{
		ingress("root", "a.test", "/", prefix, nil),
		ingress("api", "a.test", "/api", prefix, nil),
		ingress("v1", "a.test", "/api/v1", exact, nil),
		ingress("exact", "x.test", "/only", exact, nil),
		ingress("wild", "*.w.test", "/", prefix, nil),
		ingress("secure", "s.test", "/", prefix, map[string]string{annotationEntryPoints: "websecure"}),
		ingress("tls", "t.test", "/", prefix, map[string]string{annotationTLS: "true"}),
		ingress("empty", "e.test", "/", prefix, nil),
		ingress("missing", "m.test", "/", prefix, nil),
	}, resolveAll)
	web, websecure := o.EntryPoints["web"], o.EntryPoints["websecure"]
	for _, c := range []struct {
		e          *EntryPoint
		tls        bool
		host, path string
		want       string
	}{
		{websecure, true, "a.test", "/", "root"},
		// The longer rule wins, and PathPrefix("/api") is longer than Path("/api/v1").
		{websecure, true, "a.test", "/api/v1", "api"},
		{websecure, true, "x.test", "/only", "exact"},
		{websecure, true, "x.test", "/only/", ""},
		{websecure, true, "a.test", "/api/v1/x", "api"},
		// Traefik compares prefixes by characters unless told otherwise.
		{websecure, true, "a.test", "/apiary", "api"},
		{websecure, true, "b.test", "/", ""},
		{websecure, true, "x.w.test", "/", "wild"},
		{websecure, true, "x.y.w.test", "/", ""},
		{websecure, true, "w.test", "/", ""},
		{web, false, "a.test", "/", "root"},
		{web, true, "a.test", "/", ""},
		{websecure, false, "a.test", "/", ""},
		{web, false, "s.test", "/", ""},
		{websecure, true, "s.test", "/", "secure"},
		{web, false, "t.test", "/", ""},
		{web, true, "t.test", "/", "tls"},
		{websecure, true, "e.test", "/", "empty"},
		{websecure, true, "m.test", "/", ""},
	} {
		got := ""
		if r := Match(&o, routes, c.e, c.host, c.path, c.tls); r != nil {
			got = r.Backend.Service
		}
		if got != c.want {
			t.Errorf("%s tls=%v %s%s: %q, want %q", c.e.Name, c.tls, c.host, c.path, got, c.want)
		}
	}
	o.StrictPrefix = true
	if r := Match(&o, routes, websecure, "a.test", "/apiary", true); r == nil || r.Backend.Service != "root" {
		t.Errorf("strict prefixes: /apiary went to %+v, want root", r)
	}
	o.AllowEmptyServices = false
	routes = Routes(&o, []*networkingv1.Ingress{ingress("empty", "e.test", "/", prefix, nil)}, resolveAll)
	if len(routes) != 0 {
		t.Errorf("a Service without endpoints made routes %+v, though empty Services are not allowed", routes)
	}
}

func TestProcessed(t *testing.T) {
	classes := []*networkingv1.IngressClass{
		{ObjectMeta: metav1.ObjectMeta{Name: "traefik"}, Spec: networkingv1.IngressClassSpec{Controller: controllerName}},
		{ObjectMeta: metav1.ObjectMeta{Name: "nginx"}, Spec: networkingv1.IngressClassSpec{Controller: "k8s.io/ingress-nginx"}},
	}
	for _, c := range []struct {
		option     string
		class      *string
		annotation string
		want       bool
	}{
		{"", ptr("traefik"), "", true},
		{"", ptr("nginx"), "", false},
		{"", ptr("unknown"), "", false},
		{"other", ptr("traefik"), "", false},
		{"traefik", ptr("traefik"), "", true},
		{"", nil, "", true},
		{"", nil, "traefik", true},
		{"", nil, "nginx", false},
		{"traefik", nil, "", false},
	} {
		i := &networkingv1.Ingress{Spec: networkingv1.IngressSpec{IngressClassName: c.class}}
		if c.annotation != "" {
			i.Annotations = map[string]string{annotationClass: c.annotation}
		}
		if got := processed(&Options{IngressClass: c.option}, i, classes); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestParseArguments(t *testing.T) {
	o := ParseArguments([]string{
		"--entryPoints.web.address=:8000/tcp", "--entryPoints.websecure.address=:8443/tcp",
		"--entryPoints.web.http.redirections.entryPoint.to=websecure", "--entryPoints.web.http.redirections.entryPoint.permanent=false",
		"--entryPoints.websecure.http.tls.options=modern", "--providers.kubernetesingress.ingressClass=traefik",
		"--ping=true", "--ping.entryPoint=web", "--log.level=INFO",
	})
	if e := o.EntryPoints["websecure"]; e == nil || !e.TLS || e.Port != "8443" {
		t.Errorf("websecure: %+v", e)
	}
	if !o.Ingress || o.CRD || o.AllowEmptyServices || o.IngressClass != "traefik" || o.Ping != "web" {
		t.Errorf("options: %+v", o)
	}
	redirect := o.EntryPoints["web"].Redirect
	request := httptest.NewRequest(http.MethodGet, "http://a.test:30080/x?y=1", nil)
	if to, status := o.target(redirect, request); to != "https://a.test:8443/x?y=1" || status != http.StatusFound {
		t.Errorf("to an entry point by name: %s %d", to, status)
	}
	redirect = &Redirect{To: ":443", Scheme: "https", Permanent: true}
	if to, status := o.target(redirect, request); to != "https://a.test/x?y=1" || status != http.StatusMovedPermanently {
		t.Errorf("to a port: %s %d", to, status)
	}
	if none := ParseArguments(nil); !none.Ingress || !none.AllowEmptyServices || !none.EntryPoints["websecure"].TLS {
		t.Errorf("no arguments at all: %+v", none)
	}
	if o := ParseArguments([]string{"--entryPoints.web.address=:8000/tcp"}); o.Ingress || o.CRD || len(o.EntryPoints) != 1 {
		t.Errorf("arguments without a provider: %+v", o)
	}
	if o := ParseArguments([]string{"--ping=true", "--providers.kubernetesingress.strictPrefixMatching=true"}); !o.StrictPrefix || o.EntryPoints["web"] == nil {
		t.Errorf("arguments without entry points: %+v", o)
	}
}

func TestCertificatesByName(t *testing.T) {
	fallback, err := DefaultCertificate()
	if err != nil {
		t.Fatal(err)
	}
	if fallback.Leaf.Subject.CommonName != "TRAEFIK DEFAULT CERT" {
		t.Errorf("subject %s", fallback.Leaf.Subject)
	}
	certificate := func(names ...string) *tls.Certificate {
		c, err := DefaultCertificate()
		if err != nil {
			t.Fatal(err)
		}
		c.Leaf.DNSNames = names
		return c
	}
	exact, wild := certificate("a.w.test"), certificate("*.w.test", "w.test")
	c := NewCertificates([]*tls.Certificate{wild, exact}, fallback)
	for name, want := range map[string]*tls.Certificate{
		"a.w.test": exact, "A.W.Test.": exact, "b.w.test": wild, "w.test": wild, "x.y.w.test": fallback, "": fallback,
	} {
		if c.For(name) != want {
			t.Errorf("%q got another certificate", name)
		}
	}
}

func TestCountEndpoints(t *testing.T) {
	got := countEndpoints([]*discoveryv1.EndpointSlice{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Labels: map[string]string{discoveryv1.LabelServiceName: "s"}},
		Ports:      []discoveryv1.EndpointPort{{Name: ptr("web")}},
		Endpoints: []discoveryv1.Endpoint{
			{NodeName: ptr("here")},
			{NodeName: ptr("there"), Conditions: discoveryv1.EndpointConditions{Ready: ptr(true)}},
			{NodeName: ptr("here"), Conditions: discoveryv1.EndpointConditions{Ready: ptr(false)}},
		},
	}}, "here")
	if c := got[endpointKey("n", "s", "web")]; c != (count{here: 1, anywhere: 2}) {
		t.Errorf("counted %+v", c)
	}
}

// asked is what an entry point answers to a connection that begins with a PROXY
// header of the client 198.51.100.7, or with none.
func asked(t *testing.T, arguments []string, header bool) string {
	t.Helper()
	options := ParseArguments(append(arguments, "--entryPoints.web.address=:8000/tcp"))
	frontend := NewFrontend("127.0.0.1", "node")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	number := int32(listener.Addr().(*net.TCPAddr).Port)
	prefix := networkingv1.PathTypePrefix
	routes := Routes(&options, []*networkingv1.Ingress{ingress("root", "a.test", "/", prefix, nil)}, resolveAll)
	frontend.state = &State{
		Options: options, Routes: routes,
		Ports: []Port{{NodePort: number, Service: "s", EntryPoint: options.EntryPoints["web"]}},
	}
	serving := frontend.serve(listener, number)
	defer serving.close()
	connection, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(10 * time.Second))
	if header {
		client := &net.TCPAddr{IP: net.ParseIP("198.51.100.7"), Port: 4711}
		if _, err := proxyproto.HeaderProxyFromAddrs(2, client, listener.Addr()).WriteTo(connection); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = io.WriteString(connection, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	answer, _ := io.ReadAll(connection)
	return string(answer)
}

func TestProxyProtocol(t *testing.T) {
	trusting := []string{"--entryPoints.web.proxyProtocol.trustedIPs=10.0.0.1,127.0.0.0/8", "--providers.kubernetesingress"}
	other := []string{"--entryPoints.web.proxyProtocol.trustedIPs=10.0.0.1", "--providers.kubernetesingress"}
	for _, c := range []struct {
		what      string
		arguments []string
		header    bool
		want      string
	}{
		{"a trusted address says whose connection it is", trusting, true, "client: 198.51.100.7"},
		{"or is taken as it is", trusting, false, "client: 127.0.0.1"},
		{"what another says is ignored", other, true, "client: 127.0.0.1"},
		{"an entry point that reads no header takes it for a request", []string{"--providers.kubernetesingress"}, true, "400 Bad Request"},
	} {
		if got := asked(t, c.arguments, c.header); !strings.Contains(got, c.want) {
			t.Errorf("%s: no %q in %q", c.what, c.want, got)
		}
	}
}
