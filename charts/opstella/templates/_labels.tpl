{{/* Labels of every object. Takes root and selector (a map). */}}
{{- define "opstella.labels" -}}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{ toYaml .selector }}
{{- end }}
