{{- define "garden.selectorLabels" -}}
app.kubernetes.io/name: shoot-backup-garden
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "garden.labels" -}}
{{ include "garden.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: garden
app.kubernetes.io/part-of: shoot-backup
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "garden.config" -}}
{{- if .Values.garden.kubeconfigSecret }}
gardenKubeconfig: /var/run/secrets/shoot-backup/garden/kubeconfig
{{- end }}
agent:
  image: {{ .Values.agent.image | quote }}
  extraCA: {{ .Values.agent.extraCA | quote }}
  logLevel: {{ .Values.agent.logLevel | quote }}
manageIssuer: {{ .Values.manageIssuer }}
autoEnable: {{ .Values.autoEnable }}
listen: 0.0.0.0:8080
leaderElection:
  name: shoot-backup-garden
  namespace: {{ .Release.Namespace }}
logLevel: {{ .Values.logLevel | quote }}
{{- end }}
