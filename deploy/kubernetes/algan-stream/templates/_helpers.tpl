{{- define "algan.name" -}}
{{- $name := .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- if contains "algan-stream" $name -}}{{ $name }}{{- else -}}{{ printf "%s-algan" $name }}{{- end -}}
{{- end -}}

{{- define "algan.selector" -}}
app.kubernetes.io/name: algan-stream
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "algan.labels" -}}
{{ include "algan.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "algan.image" -}}
{{- $kind := ternary "cuda" "cpu" .Values.gpu.enabled -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default (printf "%s-%s" .Chart.AppVersion $kind) }}
{{- end -}}

{{/* The bundle as the service names it. */}}
{{- define "algan.bundle" -}}
{{- if eq .Values.model.from "demo" -}}demo
{{- else if eq .Values.model.from "pvc" -}}/models/bundle
{{- else -}}/models/bundle/{{ .Values.model.oci.path }}
{{- end -}}
{{- end -}}

{{/* The line's file: what the user wrote, and what the chart decides. */}}
{{- define "algan.line" -}}
{{- range $key := list "bundle" "http" -}}
{{- if hasKey $.Values.line $key -}}
{{- fail (printf "line.%s is set by the chart: expected model.* and ports.http instead" $key) -}}
{{- end -}}
{{- end -}}
{{- $http := dict "bind" (printf "0.0.0.0:%d" (int .Values.ports.http)) "insecure" true -}}
{{- merge (dict "bundle" (include "algan.bundle" .) "http" $http) .Values.line | toYaml -}}
{{- end -}}

{{- define "algan.mounts" -}}
- {name: line, mountPath: /etc/algan-stream, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
- {name: state, mountPath: /var/lib/algan-stream}
{{- if ne .Values.model.from "demo" }}
- name: model
  mountPath: /models/bundle
  readOnly: true
  {{- if eq .Values.model.from "pvc" }}
  {{- with .Values.model.pvc.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
  {{- end }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "algan.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpu.enabled -}}
{{- $limits := get $resources "limits" | default dict -}}
{{- $_ := set $limits .Values.gpu.resource (int .Values.gpu.count) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{ toYaml $resources }}
{{- end -}}
