{{/* What the stand-in charts share. Every object is rendered from data; a chart's own names stand in its files. */}}

{{/* Name as most charts make it: fullnameOverride, else the release with the chart's name where it lacks it. */}}
{{- define "double.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}{{ .Values.fullnameOverride }}
{{- else if contains $name .Release.Name -}}{{ .Release.Name }}
{{- else -}}{{ .Release.Name }}-{{ $name }}{{- end -}}
{{- end }}

{{/* Labels of every object. Takes root, selector (a map), and may take extra (a map). */}}
{{- define "double.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
opstella.lab/double: "true"
{{ toYaml .selector }}
{{- with .extra }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What the real chart gives the pods of a workload, from the facts about it: {ports, init, references}. Takes root, kind,
     name. References are of objects that neither chart makes; those of every shape. */}}
{{- define "double.facts" -}}
{{- $facts := .root.Files.Get "facts.json" | default "{}" | fromJson -}}
{{- get ($facts.pods | default dict) (printf "%s/%s" .kind .name) | default dict | toJson -}}
{{- end }}

{{/* A workload. Takes root, kind, name, selector, containers (a list), and may take replicas, serviceName,
     account, podSecurity, hostNetwork, affinity, nodeSelector, tolerations, volumes, priority, extra. */}}
{{- define "double.workload" -}}
{{- $facts := include "double.facts" . | fromJson }}
{{- $containers := list }}
{{- $text := toJson (dict "containers" .containers "volumes" .volumes) }}
{{- $volumes := .volumes | default list }}
{{- $mounts := list }}
{{- range $number, $reference := $facts.references }}
{{- /* With further certificates in the settings, what holds them has a name of their digest. */}}
{{- if not (regexMatch (printf "\"%s(-[0-9a-f]{8})?\"" $reference.name) $text) }}
{{- $volume := printf "fact-%d" $number }}
{{- $source := ternary (dict "secret" (dict "secretName" $reference.name)) (dict "configMap" (dict "name" $reference.name)) (eq $reference.kind "Secret") }}
{{- $volumes = append $volumes (merge (dict "name" $volume) $source) }}
{{- $mounts = append $mounts (dict "name" $volume "mountPath" (printf "/facts/%d" $number) "readOnly" true) }}
{{- end }}
{{- end }}
{{- range $number, $container := .containers }}
{{- $known := get ($facts.containers | default dict) $container.name }}
{{- if $known }}{{ $container = merge (dict "ports" $known) $container }}{{ end }}
{{- if and (eq $number 0) $mounts }}{{ $container = merge (dict "volumeMounts" (concat ($container.volumeMounts | default list) $mounts)) $container }}{{ end }}
{{- $containers = append $containers $container }}
{{- end }}
{{- $init := list }}
{{- range $name, $image := $facts.init }}
{{- $init = append $init (dict "name" $name "image" $image "securityContext" ((first $.containers).securityContext | default dict)) }}
{{- end }}
apiVersion: apps/v1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "double.labels" . | nindent 4 }}
spec:
  {{- if ne .kind "DaemonSet" }}
  replicas: {{ .replicas }}
  {{- end }}
  {{- with .serviceName }}
  serviceName: {{ . }}
  {{- end }}
  selector:
    matchLabels: {{- toYaml .selector | nindent 6 }}
  template:
    metadata:
      labels: {{- toYaml .selector | nindent 8 }}
    spec:
      serviceAccountName: {{ .account | default "default" }}
      {{- with .hostNetwork }}
      hostNetwork: {{ . }}
      {{- end }}
      {{- with .priority }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with .podSecurity }}
      securityContext: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $init }}
      initContainers: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers: {{- toYaml $containers | nindent 8 }}
      {{- with $volumes }}
      volumes: {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}

{{/* A Service. Takes root, name, selector, ports (a list), and may take spec (a map) and extra. */}}
{{- define "double.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "double.labels" . | nindent 4 }}
spec:
  {{- with .spec }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  selector: {{- toYaml .selector | nindent 4 }}
  ports: {{- toYaml .ports | nindent 4 }}
{{- end }}

{{/* A ServiceAccount. Takes root, name, selector, and may take annotations. */}}
{{- define "double.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "double.labels" . | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* A hook Job of one container. Takes root, name, selector, hook (the annotations), container, account. */}}
{{- define "double.hook" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "double.labels" . | nindent 4 }}
  annotations: {{- toYaml .hook | nindent 4 }}
spec:
  backoffLimit: 4
  template:
    metadata:
      labels: {{- toYaml .selector | nindent 8 }}
    spec:
      serviceAccountName: {{ .account }}
      restartPolicy: OnFailure
      {{- with .podSecurity }}
      securityContext: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers: {{- toYaml (list .container) | nindent 8 }}
{{- end }}

{{/* The tool's own definitions, from the files of the chart. Takes root and keep. */}}
{{- define "double.crds" -}}
{{- range $path, $_ := .root.Files.Glob "definitions/*.yaml" }}
{{- $definition := $.root.Files.Get $path | fromYaml }}
{{- $own := $definition.metadata.annotations | default dict }}
{{- if $.keep }}{{ $own = merge (dict "helm.sh/resource-policy" "keep") $own }}{{ end }}
{{- $_ := set $definition.metadata "annotations" $own }}
---
{{ toYaml $definition }}
{{- end }}
{{- end }}
