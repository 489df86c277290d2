package gate

import (
	"context"
	"errors"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
)

func deployment(generation int64, available bool) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "d", Generation: generation}}
	d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionFalse}}
	if available {
		d.Status.ReadyReplicas = 1
		d.Status.Conditions[0].Status = corev1.ConditionTrue
	}
	return d
}

func TestAvailable(t *testing.T) {
	scaled := deployment(1, true)
	scaled.Spec.Replicas = new(int32)
	deleting := deployment(1, true)
	deleting.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	for name, c := range map[string]struct {
		d    *appsv1.Deployment
		want bool
	}{
		"available": {deployment(1, true), true}, "not": {deployment(1, false), false}, "none": {nil, false},
		"scaled to nothing": {scaled, false}, "being deleted": {deleting, false},
	} {
		if got := Available(c.d); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// expect fails unless the channel delivers want within a second.
func expect(t *testing.T, events <-chan string, want string) {
	t.Helper()
	select {
	case got := <-events:
		if got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	case <-time.After(5 * time.Second):
		t.Fatalf("no %s within 5 s", want)
	}
}

func TestRunFollowsTheDeployment(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client := fake.NewClientset([]runtime.Object{deployment(1, false)}...)
	events := make(chan string, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, kubernetes.Interface(client), Target{Namespace: "n", Name: "d"}, func(ctx context.Context, _ *appsv1.Deployment) error {
			events <- "start"
			<-ctx.Done()
			events <- "stop"
			return nil
		})
	}()
	time.Sleep(200 * time.Millisecond)
	select {
	case got := <-events:
		t.Fatalf("%s before the deployment was available", got)
	default:
	}
	update := func(d *appsv1.Deployment) {
		t.Helper()
		if _, err := client.AppsV1().Deployments("n").Update(ctx, d, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	update(deployment(1, true))
	expect(t, events, "start")
	update(deployment(1, false))
	expect(t, events, "stop")
	update(deployment(1, true))
	expect(t, events, "start")
	update(deployment(2, true)) // another revision: other arguments
	expect(t, events, "stop")
	expect(t, events, "start")
	if err := client.AppsV1().Deployments("n").Delete(ctx, "d", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	expect(t, events, "stop")
	cancel()
	if err := <-ended; err != nil {
		t.Fatalf("ended with %v", err)
	}
}

func TestRunEndsWithTheErrorOfItsWork(t *testing.T) {
	client := fake.NewClientset([]runtime.Object{deployment(1, true)}...)
	want := errors.New("lost")
	got := Run(context.Background(), client, Target{Namespace: "n", Name: "d"}, func(context.Context, *appsv1.Deployment) error { return want })
	if !errors.Is(got, want) {
		t.Fatalf("ended with %v, want %v", got, want)
	}
}
