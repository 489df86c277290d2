// Command ingress-double is a double of kube-proxy's NodePorts and of Traefik
// on one node. See lab/workloads/README.md for what it does not prove.
package main

import (
	"context"
	"flag"
	"runtime/debug"

	"k8s.io/klog/v2"

	"opstella.dev/lab/workloads/internal/ingress"
	"opstella.dev/lab/workloads/internal/process"
)

func main() {
	klog.InitFlags(nil)
	flag.Parse()
	// One of these runs on every agent of the lab: rather collect more often.
	debug.SetGCPercent(40)
	debug.SetMemoryLimit(24 << 20)
	process.Main("ingress-double", func(ctx context.Context) error {
		env, err := process.Load("KUBECONFIG", "NODE_NAME", "NODE_IP")
		if err != nil {
			return err
		}
		config, err := env.RESTConfig("lab-ingress-double")
		if err != nil {
			return err
		}
		return ingress.Run(ctx, config, env.NodeIP, env.NodeName)
	})
}
