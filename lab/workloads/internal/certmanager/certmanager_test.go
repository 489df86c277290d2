package certmanager

import (
	"testing"

	"github.com/cert-manager/cert-manager/pkg/controller"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSettingsOf(t *testing.T) {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "cm"}}
	plain := SettingsOf(d)
	if plain.ClusterResourceNamespace != "cm" || plain.LeaderElectionNamespace != "kube-system" || plain.EnableCertificateOwnerRef {
		t.Errorf("defaults: %+v", plain)
	}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Args: []string{
		"--v=2", "--cluster-resource-namespace=$(POD_NAMESPACE)", "--leader-election-namespace=cm",
		"--enable-certificate-owner-ref=true", "--default-issuer-name=internal", "--default-issuer-kind=ClusterIssuer",
	}}}
	want := Settings{
		ClusterResourceNamespace: "cm", LeaderElectionNamespace: "cm", EnableCertificateOwnerRef: true,
		DefaultIssuerName: "internal", DefaultIssuerKind: "ClusterIssuer", DefaultIssuerGroup: "cert-manager.io",
	}
	if got := SettingsOf(d); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// The controllers register themselves when imported: a lost import would leave
// certificates waiting for ever.
func TestControllersAreThere(t *testing.T) {
	for _, name := range []string{
		"issuers", "clusterissuers", "ingress-shim", "certificates-trigger", "certificates-key-manager",
		"certificates-request-manager", "certificates-issuing", "certificates-readiness", "certificates-revision-manager",
		"certificaterequests-approver", "certificaterequests-issuer-ca", "certificaterequests-issuer-selfsigned",
		"certificaterequests-issuer-vault",
	} {
		if controller.Known()[name] == nil {
			t.Errorf("controller %s is not there", name)
		}
	}
}

func TestOnlyVaultsInsideOfTheClusterAreSimulated(t *testing.T) {
	for server, want := range map[string]bool{
		"https://vault-active.vault.svc:8200": true, "https://vault.vault.svc.cluster.local:8200": true,
		"https://127.0.0.1:8200": false, "https://vault.example.com": false, "https://svc:8200": false, "%": false,
	} {
		if got := simulated(server); got != want {
			t.Errorf("%s: %v, want %v", server, got, want)
		}
	}
}
