{{- define "agent.selectorLabels" -}}
app.kubernetes.io/name: shoot-backup-agent
app.kubernetes.io/instance: shoot-backup-agent
{{- end }}

{{- define "agent.labels" -}}
{{ include "agent.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: agent
app.kubernetes.io/part-of: shoot-backup
app.kubernetes.io/managed-by: shoot-backup
{{- end }}

{{- define "agent.config" -}}
cluster:
  name: {{ .Values.cluster.name | quote }}
  project: {{ .Values.cluster.project | quote }}
  issuer: {{ .Values.cluster.issuer | quote }}
identity:
  clientID: {{ .Values.identity.clientID | quote }}
  tenantID: {{ .Values.identity.tenantID | quote }}
logLevel: {{ .Values.logLevel | quote }}
{{- end }}
