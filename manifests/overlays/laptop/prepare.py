"""Create a private bucket from which incomplete uploads are removed: ``prepare.py BUCKET``."""

import os
import sys
from pathlib import Path

from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.error import S3Error
from minio.lifecycleconfig import AbortIncompleteMultipartUpload, LifecycleConfig, Rule

DAYS = 2


def main(bucket: str) -> None:
    """Create the bucket if it does not exist, and set its policy and lifecycle; objects in it are not touched."""
    client = Minio(
        os.environ["MINIO_ENDPOINT"],
        os.environ["MINIO_ACCESS_KEY"],
        os.environ["MINIO_SECRET_KEY"],
        secure=os.environ.get("MINIO_SECURE", "0") == "1",
    )
    if not client.bucket_exists(bucket):
        client.make_bucket(bucket)
    # It denies only anonymous requests: on stores other than MinIO, denying everybody would include users with keys.
    policy = Path(__file__).with_name("policy.json").read_text(encoding="utf-8")
    client.set_bucket_policy(bucket, policy.replace("BUCKET", bucket))
    abort = AbortIncompleteMultipartUpload(days_after_initiation=DAYS)
    rule = Rule(ENABLED, rule_filter=Filter(prefix=""), rule_id="unfinished", abort_incomplete_multipart_upload=abort)
    try:
        client.set_bucket_lifecycle(bucket, LifecycleConfig([rule]))
    except S3Error as error:
        # MinIO has no such rule: the server itself removes them, after MINIO_API_STALE_UPLOADS_EXPIRY.
        print(f"no lifecycle rule for incomplete uploads in {bucket}: the store does not support it ({error.code})")
    print(f"bucket {bucket} is ready")


if __name__ == "__main__":
    main(sys.argv[1])
