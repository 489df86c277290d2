package cnpg

import (
	"context"
	"strings"
	"testing"

	apiv1 "github.com/cloudnative-pg/cloudnative-pg/api/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func cluster(instances int, secret string) *apiv1.Cluster {
	c := &apiv1.Cluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "db", UID: "u"},
		Spec: apiv1.ClusterSpec{
			Instances: instances, StorageConfiguration: apiv1.StorageConfiguration{Size: "1Gi"},
			Bootstrap: &apiv1.BootstrapConfiguration{InitDB: &apiv1.BootstrapInitDB{Database: "app", Owner: "app"}},
		},
	}
	if secret != "" {
		c.Spec.Bootstrap.InitDB.Secret = &apiv1.LocalObjectReference{Name: secret}
	}
	return c
}

func basicAuth() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "mine"},
		Data:       map[string][]byte{"username": []byte("app"), "password": []byte("p")},
	}
}

type world struct {
	*testing.T
	o Operator
}

func newWorld(t *testing.T, objects ...client.Object) world {
	c := fake.NewClientBuilder().WithScheme(Scheme()).WithStatusSubresource(&apiv1.Cluster{}, &corev1.Pod{}).WithObjects(objects...).Build()
	return world{t, Operator{Client: c}}
}

// round reconciles once, makes the named pods ready, and returns the status before that.
func (w world) round(pods ...string) apiv1.ClusterStatus {
	w.Helper()
	if _, err := w.o.Round(context.Background()); err != nil {
		w.Fatal(err)
	}
	for _, name := range pods {
		var pod corev1.Pod
		if err := w.o.Client.Get(context.Background(), client.ObjectKey{Namespace: "n", Name: name}, &pod); err != nil {
			w.Fatal(err)
		}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if err := w.o.Client.Status().Update(context.Background(), &pod); err != nil {
			w.Fatal(err)
		}
	}
	var found apiv1.Cluster
	if err := w.o.Client.Get(context.Background(), client.ObjectKey{Namespace: "n", Name: "db"}, &found); err != nil {
		w.Fatal(err)
	}
	return found.Status
}

func (w world) pods() (names []string) {
	var list corev1.PodList
	if err := w.o.Client.List(context.Background(), &list); err != nil {
		w.Fatal(err)
	}
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	return names
}

func TestInstancesComeOneByOneAndGoFromTheEnd(t *testing.T) {
	w := newWorld(t, cluster(2, "mine"), basicAuth())
	if s := w.round("db-1"); s.Phase != apiv1.PhaseFirstPrimary || meta.IsStatusConditionTrue(s.Conditions, "Ready") {
		t.Fatalf("first round: %s, %+v", s.Phase, s.Conditions)
	}
	if s := w.round("db-2"); s.Phase != apiv1.PhaseCreatingReplica {
		t.Fatalf("second round: %s", s.Phase)
	}
	s := w.round()
	if s.Phase != apiv1.PhaseHealthy || !meta.IsStatusConditionTrue(s.Conditions, "Ready") || s.ReadyInstances != 2 || s.CurrentPrimary != "db-1" {
		t.Fatalf("third round: %+v", s)
	}
	var c apiv1.Cluster
	if err := w.o.Client.Get(context.Background(), client.ObjectKey{Namespace: "n", Name: "db"}, &c); err != nil {
		t.Fatal(err)
	}
	c.Spec.Instances = 1
	if err := w.o.Client.Update(context.Background(), &c); err != nil {
		t.Fatal(err)
	}
	w.round()
	if names := strings.Join(w.pods(), " "); names != "db-1" {
		t.Fatalf("left after shrinking to one instance: %s", names)
	}
}

func TestSecretsOfOthersAreLeftAlone(t *testing.T) {
	w := newWorld(t, cluster(1, "mine"), basicAuth())
	w.round()
	var list corev1.SecretList
	if err := w.o.Client.List(context.Background(), &list); err != nil {
		t.Fatal(err)
	}
	// The authority's is the operator's own; it sorts first.
	if len(list.Items) != 2 || string(list.Items[1].Data["password"]) != "p" || len(list.Items[1].OwnerReferences) != 0 {
		t.Fatalf("secrets: %+v", list.Items)
	}
	if len(w.pods()) != 1 {
		t.Fatal("no pod with a good secret")
	}
}

func TestAnIncompleteSecretHoldsTheClusterBack(t *testing.T) {
	w := newWorld(t, cluster(1, "mine"), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "mine"}, Data: map[string][]byte{"username": []byte("app")},
	})
	if s := w.round(); s.Phase != apiv1.PhaseFirstPrimary || !strings.Contains(s.PhaseReason, "key password") || len(w.pods()) != 0 {
		t.Fatalf("phase %q, reason %q, pods %v", s.Phase, s.PhaseReason, w.pods())
	}
}

func TestAMissingOrForeignSecretHoldsTheClusterBack(t *testing.T) {
	foreign := basicAuth()
	foreign.Data["username"] = []byte("somebody")
	for want, objects := range map[string][]client.Object{
		`secret "mine" not found`:                                  {cluster(1, "mine")},
		`wrong username 'somebody' in secret mine, expected 'app'`: {cluster(1, "mine"), foreign},
	} {
		w := newWorld(t, objects...)
		if s := w.round(); s.Phase != apiv1.PhaseFirstPrimary || !strings.HasSuffix(s.PhaseReason, want) || len(w.pods()) != 0 {
			t.Errorf("phase %q, reason %q, want one ending in %q; pods %v", s.Phase, s.PhaseReason, want, w.pods())
		}
	}
}

func TestAClusterHasAnAuthorityOfItsOwn(t *testing.T) {
	w := newWorld(t, cluster(1, "mine"), basicAuth())
	w.round()
	ca := func() *corev1.Secret {
		var found corev1.Secret
		if err := w.o.Client.Get(context.Background(), client.ObjectKey{Namespace: "n", Name: "db-ca"}, &found); err != nil {
			t.Fatal(err)
		}
		return &found
	}
	first := ca()
	if !strings.HasPrefix(string(first.Data["ca.crt"]), "-----BEGIN CERTIFICATE-----") || len(first.OwnerReferences) != 1 {
		t.Fatalf("%+v", first)
	}
	w.round()
	if string(ca().Data["ca.crt"]) != string(first.Data["ca.crt"]) {
		t.Error("another one with each round")
	}
}
