// Package gate ties a process of the lab to the Deployment it stands behind.
//
// In the lab no container runs: KWOK only reports pods as running. A process
// that does a Deployment's work must therefore keep to the Deployment's life
// itself, or a release that never became available would still seem to work.
package gate

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// Target names the Deployments that open the gate.
type Target struct {
	// Namespace is empty for all namespaces.
	Namespace string
	// Name is empty for any name.
	Name string
	// Selector is a label selector; empty for all labels.
	Selector string
}

// String names the target for log lines.
func (t Target) String() string {
	ns, what := t.Namespace, t.Name
	if ns == "" {
		ns = "(any namespace)"
	}
	if what == "" {
		what = "[" + t.Selector + "]"
	}
	return ns + "/" + what
}

// Available tells whether a Deployment serves: its condition Available is
// True, it wants at least one replica, and nobody is deleting it.
func Available(d *appsv1.Deployment) bool {
	if d == nil || d.DeletionTimestamp != nil {
		return false
	}
	// A Deployment scaled to nothing stays Available: nothing is missing.
	if d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
		return false
	}
	if d.Status.ReadyReplicas == 0 {
		return false
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentAvailable {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// retryDelay is the pause between two attempts to reach the API server.
const retryDelay = 2 * time.Second

// Run calls work with the Deployment each time one of the target's becomes
// available, and cancels its context when none is any more, or when it is
// replaced by another revision of itself (its generation changed), so that
// work starts again with the new arguments. A work that returns an error ends
// Run with that error; Run returns nil when ctx ends.
//
// An API server that does not answer leaves the gate as it is: a real
// container keeps running through that, too.
func Run(ctx context.Context, client kubernetes.Interface, target Target, work func(context.Context, *appsv1.Deployment) error) error {
	var (
		cancel  context.CancelFunc
		done    chan error
		running *appsv1.Deployment
	)
	stop := func(why string) error {
		if cancel == nil {
			return nil
		}
		klog.InfoS("stopping", "deployment", target.String(), "why", why)
		cancel()
		err := <-done
		cancel, done, running = nil, nil, nil
		return err
	}
	start := func(d *appsv1.Deployment) {
		klog.InfoS("starting", "deployment", d.Namespace+"/"+d.Name, "generation", d.Generation)
		var c context.Context
		c, cancel = context.WithCancel(ctx)
		done, running = make(chan error, 1), d
		result := done
		go func() { result <- work(c, d) }()
	}
	klog.InfoS("waiting for an available deployment", "deployment", target.String())
	events := follow(ctx, client, target)
	for {
		select {
		case <-ctx.Done():
			return stop("the process ends")
		case err := <-done:
			cancel, done = nil, nil
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				err = fmt.Errorf("work for deployment %s ended by itself", target)
			}
			return err
		case d := <-events:
			switch {
			case d == nil:
				if err := stop("no deployment is available"); err != nil {
					return err
				}
			case running == nil:
				start(d)
			case running.UID != d.UID || running.Generation != d.Generation:
				if err := stop("the deployment changed"); err != nil {
					return err
				}
				start(d)
			}
		}
	}
}

// follow reports the first available Deployment of the target (by namespace
// and name), or nil when there is none, after each change.
func follow(ctx context.Context, client kubernetes.Interface, target Target) <-chan *appsv1.Deployment {
	out := make(chan *appsv1.Deployment)
	options := metav1.ListOptions{LabelSelector: target.Selector}
	if target.Name != "" {
		options.FieldSelector = fields.OneTermEqualSelector("metadata.name", target.Name).String()
	}
	api := client.AppsV1().Deployments(target.Namespace)
	go func() {
		for ctx.Err() == nil {
			if err := followOnce(ctx, options, api.List, api.Watch, out); err != nil && ctx.Err() == nil {
				klog.V(2).InfoS("watch of deployments ended; trying again", "deployment", target.String(), "err", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(retryDelay):
			}
		}
	}()
	return out
}

func followOnce(
	ctx context.Context,
	options metav1.ListOptions,
	list func(context.Context, metav1.ListOptions) (*appsv1.DeploymentList, error),
	open func(context.Context, metav1.ListOptions) (watch.Interface, error),
	out chan<- *appsv1.Deployment,
) error {
	found, err := list(ctx, options)
	if err != nil {
		return err
	}
	known := map[string]*appsv1.Deployment{}
	for i := range found.Items {
		d := &found.Items[i]
		known[d.Namespace+"/"+d.Name] = d
	}
	send := func() bool {
		var best *appsv1.Deployment
		var bestKey string
		for key, d := range known {
			if Available(d) && (best == nil || key < bestKey) {
				best, bestKey = d, key
			}
		}
		select {
		case out <- best:
			return true
		case <-ctx.Done():
			return false
		}
	}
	if !send() {
		return ctx.Err()
	}
	options.ResourceVersion = found.ResourceVersion
	options.AllowWatchBookmarks = true
	w, err := open(ctx, options)
	if err != nil {
		return err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		d, ok := event.Object.(*appsv1.Deployment)
		if !ok {
			return fmt.Errorf("watch event %s holds %T", event.Type, event.Object)
		}
		key := d.Namespace + "/" + d.Name
		switch event.Type {
		case watch.Added, watch.Modified:
			known[key] = d
		case watch.Deleted:
			delete(known, key)
		default:
			continue
		}
		if !send() {
			return ctx.Err()
		}
	}
	return fmt.Errorf("the API server closed the watch")
}
