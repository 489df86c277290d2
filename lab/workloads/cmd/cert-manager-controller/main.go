// Command cert-manager-controller runs the real controllers of cert-manager
// while the Deployment cert-manager/cert-manager is available.
package main

import (
	"context"
	"flag"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"opstella.dev/lab/workloads/internal/certmanager"
	"opstella.dev/lab/workloads/internal/elect"
	"opstella.dev/lab/workloads/internal/gate"
	"opstella.dev/lab/workloads/internal/process"
)

func main() {
	klog.InitFlags(nil)
	namespace := flag.String("namespace", "cert-manager", "namespace of the Deployment to stand behind")
	deployment := flag.String("deployment", "cert-manager", "name of the Deployment to stand behind")
	flag.Parse()
	process.Main("cert-manager-controller", func(ctx context.Context) error {
		env, err := process.Load("KUBECONFIG")
		if err != nil {
			return err
		}
		config, err := env.RESTConfig("lab-cert-manager-gate")
		if err != nil {
			return err
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		return gate.Run(ctx, client, gate.Target{Namespace: *namespace, Name: *deployment},
			func(ctx context.Context, d *appsv1.Deployment) error {
				return certmanager.Run(ctx, client, env.Kubeconfig, elect.Identity(env.NodeName), certmanager.SettingsOf(d))
			})
	})
}
