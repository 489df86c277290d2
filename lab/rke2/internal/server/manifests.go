package server

// helmDefinitions accept HelmChart and HelmChartConfig objects. The double
// stores them and installs nothing.
const helmDefinitions = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: helmcharts.helm.cattle.io}
spec:
  group: helm.cattle.io
  scope: Namespaced
  names: {kind: HelmChart, listKind: HelmChartList, plural: helmcharts, singular: helmchart}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: helmchartconfigs.helm.cattle.io}
spec:
  group: helm.cattle.io
  scope: Namespaced
  names: {kind: HelmChartConfig, listKind: HelmChartConfigList, plural: helmchartconfigs, singular: helmchartconfig}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              valuesContent: {type: string}
              failurePolicy: {type: string}
              valuesSecrets: {type: array, items: {type: object, x-kubernetes-preserve-unknown-fields: true}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
`

// ciliumDefinitions accept policies of hosts or of pods, which Cilium's operator would define.
// Only what every such object has is checked; nothing enforces them.
const ciliumDefinitions = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ciliumclusterwidenetworkpolicies.cilium.io}
spec:
  group: cilium.io
  scope: Cluster
  names: {kind: CiliumClusterwideNetworkPolicy, listKind: CiliumClusterwideNetworkPolicyList, plural: ciliumclusterwidenetworkpolicies, singular: ciliumclusterwidenetworkpolicy, shortNames: [ccnp]}
  versions:
  - name: v2
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          specs:
            type: array
            items:
              type: object
              x-kubernetes-preserve-unknown-fields: true
              properties:
                nodeSelector: {type: object, x-kubernetes-preserve-unknown-fields: true}
                endpointSelector: {type: object, x-kubernetes-preserve-unknown-fields: true}
                enableDefaultDeny: {type: object, properties: {ingress: {type: boolean}, egress: {type: boolean}}}
                ingress: {type: array, items: {type: object, x-kubernetes-preserve-unknown-fields: true}}
                egressDeny: {type: array, items: {type: object, x-kubernetes-preserve-unknown-fields: true}}
              oneOf:
              - required: [nodeSelector]
              - required: [endpointSelector]
`

// cisPolicies keep traffic inside RKE2's own namespaces (rancher/rke2
// pkg/rke2/np.go); the double has no network plugin that would enforce them.
const cisPolicies = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-network-policy, namespace: kube-system}
spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-network-policy, namespace: kube-public}
spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-network-policy, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}]}]}
`
