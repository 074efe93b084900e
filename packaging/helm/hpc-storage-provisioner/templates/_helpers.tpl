{{- define "provisioner.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "provisioner.fullname" -}}
{{- $name := include "provisioner.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "provisioner.selector" -}}
app.kubernetes.io/name: {{ include "provisioner.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "provisioner.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "provisioner.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "provisioner.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "provisioner.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "provisioner.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "provisioner.secret" -}}
{{- if and .Values.secrets.existing .Values.secrets.values }}
{{- fail "give secrets.existing or secrets.values, not both" }}
{{- else if .Values.secrets.existing }}
{{- .Values.secrets.existing }}
{{- else if .Values.secrets.values }}
{{- include "provisioner.fullname" . }}
{{- else }}
{{- fail "give secrets.existing, the name of a Secret, or secrets.values" }}
{{- end }}
{{- end }}

{{- /* The secrets' keys: what of an existing Secret is used, or all that is given. */ -}}
{{- define "provisioner.secretKeys" -}}
{{- if .Values.secrets.values }}
{{- keys .Values.secrets.values | sortAlpha | toJson }}
{{- else }}
{{- .Values.secrets.keys | toJson }}
{{- end }}
{{- end }}

{{- /* Fails if a secret, or a URL with credentials, is given outside the Secret: more people can read ConfigMaps and Deployments. */ -}}
{{- define "provisioner.noCredentials" -}}
{{- range $name, $system := .Values.settings.systems }}
{{- range $driver, $part := $system }}
{{- if and (kindIs "map" $part) (or (hasKey $part "password") (hasKey $part "token")) }}
{{- fail (printf "settings.systems.%s.%s contains a secret and would be readable in a ConfigMap: give it in secrets, and its path /etc/hpc-storage-provisioner/secrets/KEY as password_file or token_file" $name $driver) }}
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.env }}
{{- if and (get . "value") (regexMatch "(_TOKEN|_SECRET|LEASE_URL|_SYSTEMS)$" (get . "name")) }}
{{- fail (printf "the value of %s in env is a secret or can contain one, and would be readable in the Deployment: give it in secrets.values, or use valueFrom.secretKeyRef" .name) }}
{{- end }}
{{- if regexMatch "://[^/]*@" (get . "value" | toString) }}
{{- fail (printf "the value of %s in env contains credentials and would be readable in the Deployment: use valueFrom.secretKeyRef" .name) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Whether several provisioners exclude each other: "kubernetes", "server", or nothing. */ -}}
{{- define "provisioner.exclusion" -}}
{{- $server := has "PROVISIONER_LEASE_URL" (include "provisioner.secretKeys" . | fromJsonArray) }}
{{- if and $server .Values.lease.enabled }}
{{- fail "set lease.enabled to false to use PROVISIONER_LEASE_URL" }}
{{- else if .Values.lease.enabled }}
{{- "kubernetes" }}
{{- else if $server }}
{{- "server" }}
{{- else if gt (int .Values.replicas) 1 }}
{{- fail "several replicas need lease.enabled, or PROVISIONER_LEASE_URL among the secrets" }}
{{- end }}
{{- end }}

{{- /* settings.yaml: the values over what the chart itself decides. */ -}}
{{- define "provisioner.settings" -}}
{{- include "provisioner.noCredentials" . }}
{{- if and (dig "purge" "enabled" false .Values.settings) (not .Values.state) }}
{{- fail "settings.purge.enabled needs state, a volume that stays: purge deletes only what the journal shows to be in the trash for long enough" }}
{{- end }}
{{- $chart := dict "run" (dict "listen" (list "0.0.0.0:8002")) "state_directory" "/var/lib/hpc-storage-provisioner" "log" (dict "format" "json") }}
{{- if eq (include "provisioner.exclusion" .) "kubernetes" }}
{{- $_ := set $chart "lease" (dict "kubernetes_namespace" .Release.Namespace) }}
{{- end }}
{{- mergeOverwrite $chart (deepCopy .Values.settings) | toYaml }}
{{- end }}

{{- /* What the pods of the Deployment and of the CronJob have in common. */ -}}
{{- define "provisioner.pod" -}}
# Kubernetes' variables for services could be mistaken for settings.
enableServiceLinks: false
serviceAccountName: {{ include "provisioner.serviceAccount" . }}
securityContext:
  # Only root can set owners, project IDs, quotas and trusted attributes; the capabilities limit its rights.
  runAsUser: 0
  runAsGroup: 0
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "provisioner.env" -}}
{{- range include "provisioner.secretKeys" . | fromJsonArray }}
{{- if hasPrefix "PROVISIONER_" . }}
- name: {{ . }}_FILE
  value: /etc/hpc-storage-provisioner/secrets/{{ . }}
{{- end }}
{{- end }}
{{- if .Values.trust.configMap }}
- name: SSL_CERT_FILE
  value: /etc/hpc-storage-provisioner/trust/ca.crt
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Takes a dict: `top`, and `readOnly` for the roots. */ -}}
{{- define "provisioner.mounts" -}}
- name: settings
  mountPath: /etc/hpc-storage-provisioner/settings
  readOnly: true
- name: secrets
  mountPath: /etc/hpc-storage-provisioner/secrets
  readOnly: true
- name: state
  mountPath: /var/lib/hpc-storage-provisioner
{{- if .top.Values.trust.configMap }}
- name: trust
  mountPath: /etc/hpc-storage-provisioner/trust
  readOnly: true
{{- end }}
{{- range .top.Values.roots }}
- name: root-{{ .name }}
  mountPath: {{ .mountPath | quote }}
  {{- with .subPath }}
  subPath: {{ . | quote }}
  {{- end }}
  {{- if $.readOnly }}
  readOnly: true
  {{- end }}
  {{- if hasKey .volume "hostPath" }}
  # Mounts and unmounts on the node are visible in the pod.
  mountPropagation: HostToContainer
  {{- end }}
{{- end }}
{{- end }}

{{- /* Takes a dict: `top`, and `state`, the volume of the state directory, by default an empty one. */ -}}
{{- define "provisioner.volumes" -}}
- name: settings
  configMap:
    name: {{ include "provisioner.fullname" .top }}
- name: secrets
  secret:
    secretName: {{ include "provisioner.secret" .top }}
    defaultMode: 0400
    items:
      {{- range include "provisioner.secretKeys" .top | fromJsonArray }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
- name: state
  {{- toYaml (default (dict "emptyDir" (dict)) .state) | nindent 2 }}
{{- with .top.Values.trust.configMap }}
- name: trust
  configMap:
    name: {{ . }}
    items:
      - key: {{ $.top.Values.trust.key }}
        path: ca.crt
{{- end }}
{{- range .top.Values.roots }}
- name: root-{{ .name }}
  {{- toYaml .volume | nindent 2 }}
{{- end }}
{{- end }}
