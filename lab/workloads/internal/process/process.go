// Package process holds what the executables share: how they find the API
// server and how they end.
package process

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Environment is what the process gets from the one that starts it.
type Environment struct {
	// Kubeconfig is the path of the kubeconfig (KUBECONFIG).
	Kubeconfig string
	// NodeName is the node's name in the cluster (NODE_NAME).
	NodeName string
	// NodeIP is the node's own address (NODE_IP).
	NodeIP string
}

// Load reads KUBECONFIG, NODE_NAME and NODE_IP. It names each required one
// that is missing.
func Load(required ...string) (Environment, error) {
	for _, name := range required {
		if os.Getenv(name) == "" {
			return Environment{}, fmt.Errorf("environment variable %s is not set: whoever starts this process must set %v", name, required)
		}
	}
	return Environment{os.Getenv("KUBECONFIG"), os.Getenv("NODE_NAME"), os.Getenv("NODE_IP")}, nil
}

// RESTConfig loads the kubeconfig. userAgent shows in the API server's audit.
func (e Environment) RESTConfig(userAgent string) (*rest.Config, error) {
	c, err := clientcmd.BuildConfigFromFlags("", e.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s cannot be loaded: %w; check the variable KUBECONFIG", e.Kubeconfig, err)
	}
	c.UserAgent = userAgent
	c.QPS, c.Burst = 20, 40
	return c, nil
}

// Main runs the program until it ends, or SIGINT or SIGTERM comes, and exits
// with 1 after an error.
func Main(name string, run func(context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}
