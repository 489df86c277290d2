// Package elect lets one of several equal processes work at a time, by the
// Lease of the software that they stand behind.
package elect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// ErrLost means that the lease could not be renewed in time: another process
// may work already, so this one has to stop.
var ErrLost = errors.New("leader election lost: the lease was not renewed in time")

// Identity names this process in a lease.
func Identity(node string) string {
	if node == "" {
		node, _ = os.Hostname()
	}
	return fmt.Sprintf("%s-%d", node, os.Getpid())
}

// Run waits for the lease, then calls work, whose context ends with ctx or
// with the lease. It returns work's error, ErrLost, or nil when ctx ended. The
// lease is given back at the end, so that the next one need not wait.
func Run(ctx context.Context, client kubernetes.Interface, namespace, lease, identity string, work func(context.Context) error) error {
	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, namespace, lease,
		client.CoreV1(), client.CoordinationV1(), resourcelock.ResourceLockConfig{Identity: identity})
	if err != nil {
		return fmt.Errorf("lease %s/%s: %w", namespace, lease, err)
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	// Closed when work has returned; elect.Run never leaves it running behind.
	var result error
	started, ended := make(chan struct{}), make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock,
		// The defaults of both controllers.
		LeaseDuration:   15 * time.Second,
		RenewDeadline:   10 * time.Second,
		RetryPeriod:     2 * time.Second,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				close(started)
				defer close(ended)
				result = work(ctx)
				cancel()
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("leader election as %s for %s/%s: %w", identity, namespace, lease, err)
	}
	elector.Run(inner)
	lost := inner.Err() == nil
	cancel()
	select {
	case <-started:
		<-ended
	default:
	}
	if result == nil && lost {
		return ErrLost
	}
	return result
}
