{{/* The names that the values and the release decide. All objects' names begin with kopf-ha, since replicas look for that. */}}
{{- define "kopf-ha-ipam.name" -}}
{{- if .Values.nameOverride }}{{ .Values.nameOverride }}
{{- else if hasPrefix "kopf-ha" .Release.Name }}{{ .Release.Name }}
{{- else }}{{ printf "kopf-ha-ipam-%s" .Release.Name }}
{{- end }}
{{- end }}

{{- define "kopf-ha-ipam.account" -}}
{{- .Values.serviceAccount.name | default (include "kopf-ha-ipam.name" .) }}
{{- end }}

{{- define "kopf-ha-ipam.lease" -}}
{{- .Values.lease.name | default (include "kopf-ha-ipam.name" .) }}
{{- end }}

{{- define "kopf-ha-ipam.image" -}}
{{- if .Values.image.digest }}{{ printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}
