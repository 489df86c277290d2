// Command cnpg-double is a double of the CloudNativePG operator. See
// lab/workloads/README.md for what it does not prove.
package main

import (
	"context"
	"flag"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"opstella.dev/lab/workloads/internal/cnpg"
	"opstella.dev/lab/workloads/internal/elect"
	"opstella.dev/lab/workloads/internal/gate"
	"opstella.dev/lab/workloads/internal/process"
)

func main() {
	klog.InitFlags(nil)
	selector := flag.String("selector", "app.kubernetes.io/name=cloudnative-pg", "labels of the Deployment to stand behind, in any namespace")
	flag.Parse()
	process.Main("cnpg-double", func(ctx context.Context) error {
		env, err := process.Load("KUBECONFIG")
		if err != nil {
			return err
		}
		config, err := env.RESTConfig("lab-cnpg-double")
		if err != nil {
			return err
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		return gate.Run(ctx, client, gate.Target{Selector: *selector}, func(ctx context.Context, d *appsv1.Deployment) error {
			return elect.Run(ctx, client, d.Namespace, cnpg.Lease, elect.Identity(env.NodeName), func(ctx context.Context) error {
				return cnpg.Run(ctx, config)
			})
		})
	})
}
