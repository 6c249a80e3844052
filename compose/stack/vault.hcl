storage "raft" {
  path                   = "/raft"
  node_id                = "vault"
  performance_multiplier = 1
}
listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/setup/vault/tls.crt"
  tls_key_file  = "/setup/vault/tls.key"
}
api_addr     = "https://vault:8200"
cluster_addr = "https://vault:8201"
