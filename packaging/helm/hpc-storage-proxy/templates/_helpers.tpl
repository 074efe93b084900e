{{- define "proxy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "proxy.fullname" -}}
{{- $name := include "proxy.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "proxy.selector" -}}
app.kubernetes.io/name: {{ include "proxy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "proxy.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "proxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "proxy.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "proxy.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "proxy.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "proxy.secret" -}}
{{- if and .Values.secrets.existing .Values.secrets.values }}
{{- fail "give secrets.existing or secrets.values, not both" }}
{{- else if .Values.secrets.existing }}
{{- .Values.secrets.existing }}
{{- else if .Values.secrets.values }}
{{- include "proxy.fullname" . }}
{{- else }}
{{- fail "give secrets.existing, the name of a Secret, or secrets.values" }}
{{- end }}
{{- end }}

{{- /* The secrets' variables: what of an existing Secret is used, or all that is given. */ -}}
{{- define "proxy.secretKeys" -}}
{{- if .Values.secrets.values }}
{{- keys .Values.secrets.values | sortAlpha | toJson }}
{{- else }}
{{- .Values.secrets.keys | toJson }}
{{- end }}
{{- end }}

{{- /* Fails where a secret, or a URL with credentials, stands outside the Secret: a ConfigMap and a Deployment are no place for
them. Neither a server's address nor a proxy's has another use for `@`, and `http:user:password@proxy` is a URL, too. */ -}}
{{- define "proxy.noCredentials" -}}
{{- if contains "@" (dig "cache" "shared_url" "" .Values.settings | toString) }}
{{- fail "settings.cache.shared_url contains credentials and would be readable in a ConfigMap: give it as CACHE_SHARED_URL in secrets.values, or in your Secret with CACHE_SHARED_URL among secrets.keys" }}
{{- end }}
{{- range $group, $variable := dict "waldur_api" "WALDUR_SOCKS_PROXY" "auth" "CSCS_KEYCLOAK_SOCKS_PROXY" "hpc_user_api" "HPC_USER_SOCKS_PROXY" }}
{{- if contains "@" (dig $group "socks_proxy" "" $.Values.settings | toString) }}
{{- fail (printf "settings.%s.socks_proxy contains credentials and would be readable in a ConfigMap: give it as %s in env, with valueFrom.secretKeyRef" $group $variable) }}
{{- end }}
{{- end }}
{{- range .Values.env }}
{{- if and (get . "value") (regexMatch "(_TOKEN|_SECRET|_HEADERS|_DSN)$" (get . "name")) }}
{{- fail (printf "the value of %s in env is a secret and would be readable in the Deployment: give it in secrets.values, or use valueFrom.secretKeyRef" .name) }}
{{- end }}
{{- if regexMatch "://[^/]*@" (get . "value" | toString) }}
{{- fail (printf "the value of %s in env contains credentials and would be readable in the Deployment: use valueFrom.secretKeyRef" .name) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* settings.yaml: the values over what the chart itself decides. */ -}}
{{- define "proxy.settings" -}}
{{- include "proxy.noCredentials" . }}
{{- $server := dict "listen" (list "0.0.0.0:8000") "admin_listen" (list "0.0.0.0:8001") }}
{{- if .Values.tls.secretName }}
{{- $_ := set $server "tls_certificate" "/etc/hpc-storage-proxy/tls/tls.crt" }}
{{- $_ := set $server "tls_key" "/etc/hpc-storage-proxy/tls/tls.key" }}
{{- end }}
{{- mergeOverwrite (dict "server" $server) (deepCopy .Values.settings) | toYaml }}
{{- end }}
