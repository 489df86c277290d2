// Package ingress is a double of two things at once: of kube-proxy, as far as
// it opens the NodePorts of Services on a node, and of Traefik, as far as it
// answers behind them. No packet reaches a pod; there are none.
package ingress

import (
	"context"
	"crypto/tls"
	"fmt"
	"sort"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

const (
	traefikLabel = "app.kubernetes.io/name=traefik"
	// settle is the pause after a change, so that a burst of them costs one rebuild.
	settle = 100 * time.Millisecond
	// retry is the pause before a port that could not be opened is tried again,
	// and before the kinds of Traefik are looked for again.
	retry = 3 * time.Second
)

var tlsStores = schema.GroupVersionResource{Group: "traefik.io", Version: "v1alpha1", Resource: "tlsstores"}

// watcher holds the caches that a state is built from.
type watcher struct {
	node                                                       string
	services, slices, ingresses, classes, deployments, daemons cache.Store
	secrets, stores                                            cache.Store
	builtIn                                                    *tls.Certificate
	complained                                                 map[string]bool
}

// Run answers on the NodePorts of this node until ctx ends. address is the
// node's own IP address, node its name in the cluster.
func Run(ctx context.Context, config *rest.Config, address, node string) error {
	typed := rest.CopyConfig(config)
	typed.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	typed.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(typed)
	if err != nil {
		return fmt.Errorf("client of %s: %w", config.Host, err)
	}
	dynamicClient, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client of %s: %w", config.Host, err)
	}
	builtIn, err := DefaultCertificate()
	if err != nil {
		return fmt.Errorf("default certificate: %w", err)
	}
	changed := make(chan struct{}, 1)
	touch := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { touch() },
		UpdateFunc: func(any, any) { touch() },
		DeleteFunc: func(any) { touch() },
	}
	follow := func(informer cache.SharedIndexInformer) cache.Store {
		_, _ = informer.AddEventHandler(handler)
		return informer.GetStore()
	}
	all := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(trim))
	traefik := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(trim),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = traefikLabel }))
	secrets := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(trim),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.FieldSelector = "type=" + string(corev1.SecretTypeTLS) }))
	w := &watcher{
		node:        node,
		services:    follow(all.Core().V1().Services().Informer()),
		slices:      follow(all.Discovery().V1().EndpointSlices().Informer()),
		ingresses:   follow(all.Networking().V1().Ingresses().Informer()),
		classes:     follow(all.Networking().V1().IngressClasses().Informer()),
		deployments: follow(traefik.Apps().V1().Deployments().Informer()),
		daemons:     follow(traefik.Apps().V1().DaemonSets().Informer()),
		secrets:     follow(secrets.Core().V1().Secrets().Informer()),
		builtIn:     builtIn,
		complained:  map[string]bool{},
	}
	stores := dynamicinformer.NewDynamicSharedInformerFactory(dynamicClient, 0)
	w.stores = follow(stores.ForResource(tlsStores).Informer())
	go func() {
		// An informer of a kind that is not served complains for ever.
		for !served(client, tlsStores) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(retry):
			}
		}
		stores.Start(ctx.Done())
	}()
	for _, factory := range []informers.SharedInformerFactory{all, traefik, secrets} {
		factory.Start(ctx.Done())
	}
	for _, factory := range []informers.SharedInformerFactory{all, traefik, secrets} {
		factory.WaitForCacheSync(ctx.Done())
	}
	frontend := NewFrontend(address, node)
	defer frontend.Close()
	klog.InfoS("watching", "server", config.Host, "node", node, "address", address)
	touch()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
		// What came during the pause is in the caches already.
		select {
		case <-changed:
		default:
		}
		if err := frontend.Apply(w.build()); err != nil {
			klog.ErrorS(err, "ports that could not be opened; another process may hold them; trying again")
			time.AfterFunc(retry, touch)
		}
	}
}

func served(client kubernetes.Interface, kind schema.GroupVersionResource) bool {
	list, err := client.Discovery().ServerResourcesForGroupVersion(kind.GroupVersion().String())
	if err != nil {
		return false
	}
	for _, r := range list.APIResources {
		if r.Name == kind.Resource {
			return true
		}
	}
	return false
}

// trim drops what is not used, before it is cached.
func trim(object any) (any, error) {
	if m, ok := object.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	switch o := object.(type) {
	case *corev1.Secret:
		o.Data = map[string][]byte{
			corev1.TLSCertKey:       o.Data[corev1.TLSCertKey],
			corev1.TLSPrivateKeyKey: o.Data[corev1.TLSPrivateKeyKey],
		}
		o.Annotations = nil
	case *discoveryv1.EndpointSlice:
		for i := range o.Endpoints {
			e := &o.Endpoints[i]
			e.Addresses, e.TargetRef, e.Hints, e.DeprecatedTopology = nil, nil, nil, nil
		}
	case *appsv1.Deployment:
		o.Annotations, o.Status = nil, appsv1.DeploymentStatus{}
	case *appsv1.DaemonSet:
		o.Annotations, o.Status = nil, appsv1.DaemonSetStatus{}
	}
	return object, nil
}

// list returns a cache's objects by namespace and name.
func list[T metav1.Object](store cache.Store) []T {
	items := store.List()
	out := make([]T, 0, len(items))
	for _, item := range items {
		if o, ok := item.(T); ok {
			out = append(out, o)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		if a.GetNamespace() != b.GetNamespace() {
			return a.GetNamespace() < b.GetNamespace()
		}
		return a.GetName() < b.GetName()
	})
	return out
}

// endpoints counts ready endpoints by Service and port name.
type endpoints map[string]count

type count struct{ here, anywhere int }

func endpointKey(namespace, service, port string) string {
	return namespace + "/" + service + "/" + port
}

func countEndpoints(slices []*discoveryv1.EndpointSlice, node string) endpoints {
	out := endpoints{}
	for _, slice := range slices {
		service := slice.Labels[discoveryv1.LabelServiceName]
		for _, e := range slice.Endpoints {
			// An absent condition means yes.
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, port := range slice.Ports {
				name := ""
				if port.Name != nil {
					name = *port.Name
				}
				key := endpointKey(slice.Namespace, service, name)
				c := out[key]
				c.anywhere++
				if e.NodeName != nil && *e.NodeName == node {
					c.here++
				}
				out[key] = c
			}
		}
	}
	return out
}

// workload is a Deployment or DaemonSet of Traefik.
type workload struct {
	namespace string
	labels    map[string]string
	args      []string
}

func (w *watcher) workloads() []workload {
	var out []workload
	add := func(o metav1.Object, template corev1.PodTemplateSpec) {
		var args []string
		if len(template.Spec.Containers) > 0 {
			args = template.Spec.Containers[0].Args
		}
		out = append(out, workload{o.GetNamespace(), template.Labels, args})
	}
	for _, d := range list[*appsv1.Deployment](w.deployments) {
		add(d, d.Spec.Template)
	}
	for _, d := range list[*appsv1.DaemonSet](w.daemons) {
		add(d, d.Spec.Template)
	}
	return out
}

func (w *watcher) build() *State {
	ready := countEndpoints(list[*discoveryv1.EndpointSlice](w.slices), w.node)
	services := list[*corev1.Service](w.services)
	workloads := w.workloads()
	state := &State{}
	found := false
	for _, service := range services {
		if service.Spec.Type != corev1.ServiceTypeNodePort && service.Spec.Type != corev1.ServiceTypeLoadBalancer {
			continue
		}
		var options *Options
		for _, candidate := range workloads {
			if candidate.namespace == service.Namespace && len(service.Spec.Selector) > 0 &&
				labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(candidate.labels)) {
				parsed := ParseArguments(candidate.args)
				options = &parsed
				break
			}
		}
		if options != nil && !found {
			state.Options, found = *options, true
		}
		for _, port := range service.Spec.Ports {
			if port.NodePort == 0 || port.Protocol != corev1.ProtocolTCP && port.Protocol != "" {
				continue
			}
			c := ready[endpointKey(service.Namespace, service.Name, port.Name)]
			if c.anywhere == 0 || service.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && c.here == 0 {
				continue
			}
			p := Port{NodePort: port.NodePort, Service: fmt.Sprintf("%s/%s %s", service.Namespace, service.Name, portText(port))}
			if options != nil {
				p.EntryPoint = options.EntryPoints[entryPointName(port)]
			}
			state.Ports = append(state.Ports, p)
		}
	}
	if found {
		w.route(state, services, ready)
	}
	return state
}

func portText(port corev1.ServicePort) string {
	if port.Name != "" {
		return port.Name
	}
	return fmt.Sprint(port.Port)
}

// entryPointName is the container port's name, which Traefik's chart gives the
// entry point's name.
func entryPointName(port corev1.ServicePort) string {
	if port.TargetPort.Type == intstr.String && port.TargetPort.StrVal != "" {
		return port.TargetPort.StrVal
	}
	return port.Name
}

// route fills in the routes and certificates of the state.
func (w *watcher) route(state *State, services []*corev1.Service, ready endpoints) {
	byName := map[string]*corev1.Service{}
	for _, s := range services {
		byName[s.Namespace+"/"+s.Name] = s
	}
	resolve := func(namespace string, b networkingv1.IngressServiceBackend) (Backend, bool) {
		service := byName[namespace+"/"+b.Name]
		if service == nil {
			return Backend{}, false
		}
		for _, port := range service.Spec.Ports {
			if b.Port.Number == port.Port || b.Port.Name != "" && b.Port.Name == port.Name {
				return Backend{
					Namespace: namespace, Service: b.Name, Port: portText(port),
					Ready: ready[endpointKey(namespace, b.Name, port.Name)].anywhere > 0,
				}, true
			}
		}
		return Backend{}, false
	}
	var taken []*networkingv1.Ingress
	if state.Options.Ingress {
		classes := list[*networkingv1.IngressClass](w.classes)
		for _, ingress := range list[*networkingv1.Ingress](w.ingresses) {
			if processed(&state.Options, ingress, classes) {
				taken = append(taken, ingress)
			}
		}
	}
	state.Routes = Routes(&state.Options, taken, resolve)

	var certificates []*tls.Certificate
	seen := map[string]bool{}
	use := func(namespace, name string) {
		if key := namespace + "/" + name; name != "" && !seen[key] {
			seen[key] = true
			if c := w.certificate(key); c != nil {
				certificates = append(certificates, c)
			}
		}
	}
	for _, ingress := range taken {
		for _, section := range ingress.Spec.TLS {
			use(ingress.Namespace, section.SecretName)
		}
	}
	fallback := w.builtIn
	if state.Options.CRD {
		var defaults []*unstructured.Unstructured
		for _, store := range list[*unstructured.Unstructured](w.stores) {
			if store.GetName() == "default" {
				defaults = append(defaults, store)
			}
			entries, _, _ := unstructured.NestedSlice(store.Object, "spec", "certificates")
			for _, entry := range entries {
				if m, ok := entry.(map[string]any); ok {
					name, _, _ := unstructured.NestedString(m, "secretName")
					use(store.GetNamespace(), name)
				}
			}
		}
		// Traefik refuses a second default store, and then uses neither.
		if len(defaults) == 1 {
			name, _, _ := unstructured.NestedString(defaults[0].Object, "spec", "defaultCertificate", "secretName")
			if c := w.certificate(defaults[0].GetNamespace() + "/" + name); c != nil {
				fallback = c
			}
		}
	}
	state.Certificates = NewCertificates(certificates, fallback)
}

// certificate reads a TLS secret; nil when it is missing or broken.
func (w *watcher) certificate(key string) *tls.Certificate {
	object, exists, _ := w.secrets.GetByKey(key)
	secret, ok := object.(*corev1.Secret)
	if !exists || !ok {
		return nil
	}
	c, err := ParseCertificate(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		if id := key + "@" + secret.ResourceVersion; !w.complained[id] {
			w.complained[id] = true
			klog.InfoS("secret holds no usable certificate; another one is served instead", "secret", key, "err", err)
		}
		return nil
	}
	return c
}
