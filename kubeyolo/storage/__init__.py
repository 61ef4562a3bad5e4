"""One interface over file:// and minio:// (s3://)."""
