// Package certmanager runs the real controllers of cert-manager.
//
// The controllers are those of the module github.com/cert-manager/cert-manager;
// upstream's own executable is a module of its own that package mirrors lack,
// so this is the part of it that a CA needs. See the README for what is left out.
package certmanager

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cert-manager/cert-manager/pkg/controller"
	// Each controller and issuer registers itself when imported.
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificate-shim/ingresses"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/vault"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"opstella.dev/lab/workloads/internal/elect"
)

// workers is upstream's default number of concurrent workers a controller.
const workers = 5

// Settings are those arguments of the Deployment's container that change what
// the controllers do for a CA. Defaults are upstream's.
type Settings struct {
	// ClusterResourceNamespace holds the Secrets of ClusterIssuers.
	ClusterResourceNamespace string
	// LeaderElectionNamespace holds the Lease.
	LeaderElectionNamespace string
	// EnableCertificateOwnerRef makes Secrets go with their Certificate.
	EnableCertificateOwnerRef bool
	// DefaultIssuer of ingresses that name none.
	DefaultIssuerName, DefaultIssuerKind, DefaultIssuerGroup string
}

// SettingsOf reads the settings from the Deployment's first container.
// Arguments that do not matter here are left out.
func SettingsOf(d *appsv1.Deployment) Settings {
	s := Settings{
		ClusterResourceNamespace: d.Namespace,
		LeaderElectionNamespace:  "kube-system",
		DefaultIssuerKind:        "Issuer",
		DefaultIssuerGroup:       "cert-manager.io",
	}
	if len(d.Spec.Template.Spec.Containers) == 0 {
		return s
	}
	for _, arg := range d.Spec.Template.Spec.Containers[0].Args {
		name, value, _ := strings.Cut(arg, "=")
		value = strings.ReplaceAll(value, "$(POD_NAMESPACE)", d.Namespace)
		switch name {
		case "--cluster-resource-namespace":
			s.ClusterResourceNamespace = value
		case "--leader-election-namespace":
			s.LeaderElectionNamespace = value
		case "--enable-certificate-owner-ref":
			s.EnableCertificateOwnerRef = value == "" || value == "true"
		case "--default-issuer-name":
			s.DefaultIssuerName = value
		case "--default-issuer-kind":
			s.DefaultIssuerKind = value
		case "--default-issuer-group":
			s.DefaultIssuerGroup = value
		}
	}
	return s
}

// resources are the kinds that must be served before a controller starts, as
// an informer of a kind that is not there never gets in step.
var resources = []string{"certificates", "certificaterequests", "clusterissuers", "issuers"}

// Run waits for the kinds of cert-manager, is elected, and then runs the
// controllers until ctx ends (nil) or something fails (an error: the process
// should end and be started again, as a container would be).
func Run(ctx context.Context, client kubernetes.Interface, kubeconfig, identity string, s Settings) error {
	if err := waitForResources(ctx, client.Discovery()); err != nil {
		return nil //nolint:nilerr // only ctx ends the wait
	}
	return elect.Run(ctx, client, s.LeaderElectionNamespace, "cert-manager-controller", identity, func(ctx context.Context) error {
		return runControllers(ctx, kubeconfig, s)
	})
}

// waitForResources returns an error only when ctx ends.
func waitForResources(ctx context.Context, d discovery.DiscoveryInterface) error {
	for said := false; ; {
		if missing := missingResources(d); missing == "" {
			return nil
		} else if !said {
			klog.InfoS("waiting for the kinds of cert-manager.io/v1", "missing", missing)
			said = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func missingResources(d discovery.DiscoveryInterface) string {
	served := sets.New[string]()
	list, err := d.ServerResourcesForGroupVersion("cert-manager.io/v1")
	if err == nil {
		for _, r := range list.APIResources {
			served.Insert(r.Name)
		}
	}
	return strings.Join(sets.List(sets.New(resources...).Difference(served)), " ")
}

func runControllers(ctx context.Context, kubeconfig string, s Settings) error {
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, klog.Background()))
	defer cancel()
	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig:         kubeconfig,
		KubernetesAPIQPS:   20,
		KubernetesAPIBurst: 50,
		IssuerOptions:      controller.IssuerOptions{ClusterResourceNamespace: s.ClusterResourceNamespace},
		IngressShimOptions: controller.IngressShimOptions{
			DefaultIssuerName:                 s.DefaultIssuerName,
			DefaultIssuerKind:                 s.DefaultIssuerKind,
			DefaultIssuerGroup:                s.DefaultIssuerGroup,
			DefaultAutoCertificateAnnotations: []string{"kubernetes.io/tls-acme"},
		},
		CertificateOptions: controller.CertificateOptions{
			EnableOwnerRef: s.EnableCertificateOwnerRef,
			// Upstream's default of --copied-annotation-prefixes.
			CopiedAnnotationPrefixes:                 []string{"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/"},
			CertificateRequestMinimumBackoffDuration: time.Hour,
			CertificateRequestMaximumBackoffDuration: 32 * time.Hour,
		},
	})
	if err != nil {
		return fmt.Errorf("cert-manager: building its clients from %s: %w", kubeconfig, err)
	}
	base, err := factory.Build()
	if err != nil {
		return fmt.Errorf("cert-manager: building its context from %s: %w", kubeconfig, err)
	}
	var group sync.WaitGroup
	failed := make(chan error, len(controller.Known()))
	for name, construct := range controller.Known() {
		c, err := construct(factory)
		if err != nil {
			cancel()
			group.Wait()
			return fmt.Errorf("cert-manager: controller %s: %w", name, err)
		}
		group.Add(1)
		go func() {
			defer group.Done()
			if err := c.Run(workers, ctx); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("cert-manager: controller %s: %w", name, err)
				cancel()
			}
		}()
	}
	base.SharedInformerFactory.Start(ctx.Done())
	base.KubeSharedInformerFactory.Start(ctx.Done())
	base.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	klog.InfoS("cert-manager controllers run", "controllers", sets.List(sets.KeySet(controller.Known())),
		"clusterResourceNamespace", s.ClusterResourceNamespace)
	group.Wait()
	base.HTTP01ResourceMetadataInformersFactory.Shutdown()
	base.KubeSharedInformerFactory.Shutdown()
	base.SharedInformerFactory.Shutdown()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}
