{{- define "otelagent.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 46 | trimSuffix "-" }}
{{- end }}

{{/* The beginning of every name. The longest that must be a DNS label, of at most 63 characters, adds 17. */}}
{{- define "otelagent.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 46 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels by which objects of one component select its pods: (list $ "operator"). */}}
{{- define "otelagent.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "otelagent.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of an object, with more if wanted: (list $ "operator" $more). Those of the chart win. */}}
{{- define "otelagent.labels" -}}
{{- $root := index . 0 -}}
{{- $own := include "otelagent.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" $root.Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- $more := dict -}}
{{- if gt (len .) 2 }}{{ $more = index . 2 }}{{ end -}}
{{- toYaml (mergeOverwrite (dict) (default dict $root.Values.commonLabels) (default dict $more) $own) }}
{{- end }}

{{/* Labels of pods: (list $ "operator" $more). Those of the chart win, because selectors need them. */}}
{{- define "otelagent.podLabels" -}}
{{- $root := index . 0 -}}
{{- $own := include "otelagent.selectorLabels" . | fromYaml -}}
{{- toYaml (mergeOverwrite (dict) (default dict $root.Values.commonLabels) (default dict (index . 2)) $own) }}
{{- end }}

{{- define "otelagent.serviceAccountName" -}}
{{- $made := printf "%s-operator" (include "otelagent.fullname" .) }}
{{- if .Values.serviceAccount.create }}
{{- default $made .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The webhook's Service. The operator makes other names of it: NAME-owner, NAME-authority. */}}
{{- define "otelagent.webhookName" -}}
{{ include "otelagent.fullname" . }}-webhook
{{- end }}

{{- define "otelagent.webhookServiceAccountName" -}}
{{- if .Values.webhook.serviceAccount.create }}
{{- default (include "otelagent.webhookName" .) .Values.webhook.serviceAccount.name }}
{{- else }}
{{- required "webhook.serviceAccount.name is needed where webhook.serviceAccount.create is false" .Values.webhook.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image by its values: (list $ .Values.image). */}}
{{- define "otelagent.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* Annotations of pods: (list "operator" .Values). The container that kubectl takes is the chart's. */}}
{{- define "otelagent.podAnnotations" -}}
{{- toYaml (mergeOverwrite (dict) (default dict (index . 1).podAnnotations) (dict "kubectl.kubernetes.io/default-container" (index . 0))) }}
{{- end }}

{{/* The operator as the subject of a binding. */}}
{{- define "otelagent.operatorSubject" -}}
- kind: ServiceAccount
  name: {{ include "otelagent.serviceAccountName" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end }}

{{/* A binding to the role of the same name: (list $ "ClusterRole" NAME NAMESPACE COMPONENT). */}}
{{- define "otelagent.binding" -}}
{{- $root := index . 0 -}}
{{- $kind := index . 1 -}}
{{- $component := index . 4 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  name: {{ index . 2 }}
  {{- with index . 3 }}
  namespace: {{ . | quote }}
  {{- end }}
  labels:
    {{- include "otelagent.labels" (list $root $component) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ index . 2 }}
subjects:
  {{- if eq $component "webhook" }}
  - kind: ServiceAccount
    name: {{ include "otelagent.webhookServiceAccountName" $root | quote }}
    namespace: {{ $root.Release.Namespace | quote }}
  {{- else }}
  {{- include "otelagent.operatorSubject" $root | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Where pods of a component run, of its values: (list $ "operator" .Values). */}}
{{- define "otelagent.placement" -}}
{{- $values := index . 2 -}}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- with $values.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  # On different nodes if there are two; both replicas also run if there is only one.
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "otelagent.selectorLabels" . | nindent 8 }}
    # Counts only pods of this revision; otherwise the old pods would block a rollout.
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}

{{/* A PodDisruptionBudget of a component: (list $ "operator" .Values). */}}
{{- define "otelagent.budget" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "otelagent.fullname" $root }}-{{ $component }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "otelagent.labels" (list $root $component) | nindent 4 }}
spec:
  maxUnavailable: {{ (index . 2).podDisruptionBudget.maxUnavailable }}
  # A broken pod must not block the drain of a node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "otelagent.selectorLabels" . | nindent 6 }}
{{- end }}

{{/* The platform namespaces, as a JSON list. */}}
{{- define "otelagent.platformNamespaces" -}}
{{- default (list .Release.Namespace) .Values.platformNamespaces | uniq | toJson }}
{{- end }}

{{/* A Service for metrics and its ServiceMonitor: (list $ "operator"). */}}
{{- define "otelagent.serviceMonitor" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $name := printf "%s-%s-metrics" (include "otelagent.fullname" $root) $component -}}
{{- $monitor := $root.Values.metrics.serviceMonitor -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "otelagent.labels" . | nindent 4 }}
spec:
  clusterIP: None
  selector:
    {{- include "otelagent.selectorLabels" . | nindent 4 }}
  ports:
    - name: metrics
      port: 8080
      targetPort: metrics
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "otelagent.labels" (list $root $component $monitor.labels) | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "otelagent.selectorLabels" . | nindent 6 }}
  endpoints:
    - port: metrics
      # Else Prometheus renames the OtelAgent's namespace to exported_namespace.
      honorLabels: true
      {{- with $monitor.interval }}
      interval: {{ . }}
      {{- end }}
      {{- with $monitor.scrapeTimeout }}
      scrapeTimeout: {{ . }}
      {{- end }}
      {{- with $monitor.relabelings }}
      relabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $monitor.metricRelabelings }}
      metricRelabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
