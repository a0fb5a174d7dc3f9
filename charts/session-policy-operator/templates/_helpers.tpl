{{- define "operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of every resource. A release named like the chart is not doubled. */}}
{{- define "operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "operator.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "operator.electionRole" -}}
{{- printf "%s-election" (include "operator.fullname" .) }}
{{- end }}

{{/* Labels of every object and pod, commonLabels included. None of those may replace one that selects pods. */}}
{{- define "operator.labels" -}}
{{- $own := include "operator.selectorLabels" . | fromYaml }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service }}
{{- toYaml (merge $own .Values.commonLabels) }}
{{- end }}

{{/*
The metadata of an object. Arguments: context, name; namespace unless it is the cluster's; labels and annotations of its
own, where it has some.
*/}}
{{- define "operator.metadata" -}}
name: {{ .name | quote }}
{{- with .namespace }}
namespace: {{ . | quote }}
{{- end }}
labels:
  {{- toYaml (merge (dict) (default (dict) .labels) (include "operator.labels" .context | fromYaml)) | nindent 2 }}
{{- with merge (dict) (default (dict) .annotations) .context.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image reference, the chart's appVersion its default tag; arguments: context and the image's values. */}}
{{- define "operator.image" -}}
{{- $image := .image }}
{{- $name := $image.repository }}
{{- with default $image.registry .context.Values.global.imageRegistry }}
{{- $name = printf "%s/%s" (trimSuffix "/" .) $name }}
{{- end }}
{{- if $image.digest }}
{{- printf "%s@%s" $name $image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .context.Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{/* Pod Security "restricted", for pods and for containers. */}}
{{- define "operator.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "operator.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Names of pull secrets, separated by commas: the global ones and those given. Arguments: context and names. */}}
{{- define "operator.pullSecretNames" -}}
{{- $names := .names }}
{{- range .context.Values.global.imagePullSecrets }}
{{- if kindIs "map" . }}
{{- $names = append $names .name }}
{{- else }}
{{- $names = append $names . }}
{{- end }}
{{- end }}
{{- uniq $names | join "," }}
{{- end }}

{{/* The pull secrets of a pod of the controller's image, as its spec has them; empty for none. */}}
{{- define "operator.imagePullSecrets" -}}
{{- with include "operator.pullSecretNames" (dict "context" . "names" .Values.controller.imagePullSecrets) }}
imagePullSecrets:
  {{- range splitList "," . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
Whether an object is rendered, as "true" or nothing. Arguments: context, enabled (auto, true or false) and apiVersion,
which "auto" looks for in the cluster.
*/}}
{{- define "operator.rendered" -}}
{{- if or (eq (toString .enabled) "true") (and (eq (toString .enabled) "auto") (.context.Capabilities.APIVersions.Has .apiVersion)) }}
{{- "true" }}
{{- end }}
{{- end }}

{{/* Which monitor is rendered: ServiceMonitor, PodMonitor or nothing. Both would count everything twice. */}}
{{- define "operator.monitor" -}}
{{- $monitoring := .Values.monitoring }}
{{- $api := "monitoring.coreos.com/v1" }}
{{- $pod := include "operator.rendered" (dict "context" . "enabled" $monitoring.podMonitor.enabled "apiVersion" (printf "%s/PodMonitor" $api)) }}
{{- $service := include "operator.rendered" (dict "context" . "enabled" $monitoring.serviceMonitor.enabled "apiVersion" (printf "%s/ServiceMonitor" $api)) }}
{{- if and $service (eq (toString $monitoring.podMonitor.enabled) "true") }}
{{- fail "monitoring.podMonitor.enabled and monitoring.serviceMonitor.enabled: switch one off, or every metric is counted twice" }}
{{- end }}
{{- if $service }}
{{- "ServiceMonitor" }}
{{- else if $pod }}
{{- "PodMonitor" }}
{{- end }}
{{- end }}

{{/* What a PodMonitor and a ServiceMonitor say of the controller's endpoint; argument: the monitor's values. */}}
{{- define "operator.endpoint" -}}
port: http
path: /metrics
# The label "namespace" of a policy's metrics is the policy's, not the controller's.
honorLabels: true
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- end }}

{{/* Egress to addresses, or anywhere if there are none; arguments: to, ports, protocols. */}}
{{- define "operator.egress" -}}
- ports:
    {{- $protocols := .protocols }}
    {{- range $port := .ports }}
    {{- range $protocols }}
    - port: {{ $port }}
      protocol: {{ . }}
    {{- end }}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Egress to the collector's port, or nothing if there is none; argument: the chart's telemetry values. */}}
{{- define "operator.telemetryEgress" -}}
{{- with .otlp.endpoint }}
{{- $url := urlParse . }}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "443" "80" (eq $url.scheme "https")) }}
{{- include "operator.egress" (dict "ports" (list $port) "protocols" (list "TCP")) }}
{{- end }}
{{- end }}

{{/* What the controller may do with policies and what it makes of them, in the namespaces it serves. No Secrets. */}}
{{- define "operator.rules" -}}
- apiGroups: [sessionpolicy.dev]
  resources: [sessionpolicies]
  verbs: [get, list, watch]
- apiGroups: [sessionpolicy.dev]
  resources: [sessionpolicies/status]
  verbs: [patch]
- apiGroups: [sessionpolicy.dev]
  resources: [sessionrevocations]
  verbs: [get, list, watch, delete]
- apiGroups: [sessionpolicy.dev]
  resources: [sessionrevocations/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [cronjobs]
  verbs: [get, list, watch, create, patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
{{- end }}
