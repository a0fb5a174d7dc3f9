{{/* The controller's configuration, as its environment variables. What is empty is left to the controller's default. */}}
{{- define "operator.environment" -}}
- name: SESSION_POLICY_WATCH_NAMESPACES
  value: {{ join "," .Values.watchNamespaces | quote }}
- name: SESSION_POLICY_LOG_LEVEL
  value: {{ .Values.controller.logLevel | upper | quote }}
- name: SESSION_POLICY_RESYNC_SECONDS
  value: {{ .Values.controller.resyncSeconds | int64 | quote }}
- name: SESSION_POLICY_HTTP_PORT
  value: "8080"
- name: SESSION_POLICY_LEADER_ELECTION
  value: "true"
- name: SESSION_POLICY_LEASE_NAME
  value: {{ include "operator.fullname" . | quote }}
- name: SESSION_POLICY_LEASE_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: SESSION_POLICY_POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- with .Values.job }}
- name: SESSION_POLICY_JOB_IMAGE
  value: {{ include "operator.image" (dict "context" $ "image" .image) | quote }}
- name: SESSION_POLICY_JOB_IMAGE_PULL_POLICY
  value: {{ .image.pullPolicy | quote }}
{{- with include "operator.pullSecretNames" (dict "context" $ "names" .imagePullSecrets) }}
- name: SESSION_POLICY_JOB_IMAGE_PULL_SECRETS
  value: {{ . | quote }}
{{- end }}
{{- with .priorityClassName }}
- name: SESSION_POLICY_JOB_PRIORITY_CLASS
  value: {{ . | quote }}
{{- end }}
{{- with .serviceAccountName }}
- name: SESSION_POLICY_JOB_SERVICE_ACCOUNT
  value: {{ . | quote }}
{{- end }}
{{- with .podLabels }}
- name: SESSION_POLICY_JOB_POD_LABELS
  value: {{ toJson . | quote }}
{{- end }}
{{- with .podAnnotations }}
- name: SESSION_POLICY_JOB_POD_ANNOTATIONS
  value: {{ toJson . | quote }}
{{- end }}
{{- with .extraEnv }}
- name: SESSION_POLICY_JOB_ENV
  value: {{ toJson . | quote }}
{{- end }}
{{- with .limits.maxCpu }}
- name: SESSION_POLICY_JOB_MAX_CPU
  value: {{ . | quote }}
{{- end }}
{{- with .limits.maxMemory }}
- name: SESSION_POLICY_JOB_MAX_MEMORY
  value: {{ . | quote }}
{{- end }}
{{- /* Zero is a limit: compared as text, not as a truth. */}}
{{- if ne (toString .limits.maxTimeoutSeconds) "" }}
- name: SESSION_POLICY_JOB_MAX_TIMEOUT_SECONDS
  value: {{ .limits.maxTimeoutSeconds | int64 | quote }}
{{- end }}
{{- if ne (toString .limits.maxRetries) "" }}
- name: SESSION_POLICY_JOB_MAX_RETRIES
  value: {{ .limits.maxRetries | int64 | quote }}
{{- end }}
{{- with .limits.maxParallelism }}
- name: SESSION_POLICY_JOB_MAX_PARALLELISM
  value: {{ . | int64 | quote }}
{{- end }}
- name: SESSION_POLICY_JOB_ALLOW_NODE_SELECTOR
  value: {{ .allow.nodeSelector | quote }}
- name: SESSION_POLICY_JOB_ALLOW_TOLERATIONS
  value: {{ .allow.tolerations | quote }}
- name: SESSION_POLICY_JOB_ALLOW_LOG_VOLUMES
  value: {{ .allow.logVolumes | quote }}
- name: SESSION_POLICY_JOB_ALLOW_TELEMETRY_ENDPOINT
  value: {{ .allow.telemetryEndpoint | quote }}
{{- end }}
{{- with .Values.telemetry }}
{{- $attributes := include "operator.resourceAttributes" .resourceAttributes }}
{{- if .jobs.enabled }}
{{- with .otlp.endpoint }}
- name: SESSION_POLICY_JOB_TELEMETRY_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .otlp.headersSecret }}
{{- if .name }}
- name: SESSION_POLICY_JOB_TELEMETRY_HEADERS_SECRET
  value: {{ .name | quote }}
- name: SESSION_POLICY_JOB_TELEMETRY_HEADERS_KEY
  value: {{ .key | quote }}
{{- end }}
{{- end }}
- name: SESSION_POLICY_JOB_TELEMETRY_SAMPLING_PERCENT
  value: {{ .samplingPercent | int64 | quote }}
- name: SESSION_POLICY_JOB_TELEMETRY_METRICS
  value: {{ .jobs.metrics | quote }}
{{- with $attributes }}
- name: SESSION_POLICY_JOB_TELEMETRY_RESOURCE_ATTRIBUTES
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- if and .controller.enabled .otlp.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .otlp.endpoint | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: http/protobuf
{{- with .otlp.headersSecret }}
{{- if .name }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef:
      name: {{ .name | quote }}
      key: {{ .key | quote }}
      # Telemetry keeps nobody from working.
      optional: true
{{- end }}
{{- end }}
{{- if lt (int64 .samplingPercent) 100 }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ divf .samplingPercent 100 | quote }}
{{- end }}
{{- with $attributes }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ . | quote }}
{{- end }}
- name: SESSION_POLICY_POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
- name: SESSION_POLICY_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: SESSION_POLICY_NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end }}
{{- end }}
{{- end }}

{{/* As OTEL_RESOURCE_ATTRIBUTES has them: values with percent signs, like those of a URL. */}}
{{- define "operator.resourceAttributes" -}}
{{- $found := list }}
{{- range $name, $value := . }}
{{- $found = append $found (printf "%s=%s" $name ($value | urlquery | replace "+" "%20")) }}
{{- end }}
{{- join "," $found }}
{{- end }}
