"""The connection to Kubeflow Pipelines over its REST interface; each failure is an error with one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import urllib3

from kubeyolo.errors import InputError, one_line
from kubeyolo.kubeflow.remote import LONGEST

HOST, TOKEN, NAMESPACE = "KUBEYOLO_KFP_HOST", "KUBEYOLO_KFP_TOKEN", "KUBEYOLO_KFP_NAMESPACE"

# The generated client does not accept fractions, and by default waits for ever.
_TIMEOUT_SECONDS = 60
_RETRIES = 2
_PAGE = 100
# With a web page as the body, such a status means that the address is not the address of the API.
_NOT_FOR_A_PAGE = frozenset({400, 404, 405})


class Unreachable(InputError):
    """Kubeflow does not answer at the moment."""


class NoSuchThing(InputError):
    """Kubeflow has no object with this name or id."""


class NoApi(InputError):
    """The answer is a web page instead of an answer from Kubeflow's API: a login page, or a wrong address."""


class Connection:
    """A connection to Kubeflow Pipelines.

    Args:
        host: Address of the API, such as ``http://127.0.0.1:8888``; if empty, an environment variable sets it.

    Raises:
        InputError: No host is set, or Kubeflow does not answer at the host.
    """

    def __init__(self, host: str = "") -> None:
        import kfp_server_api as api

        self.host = (host or os.environ.get(HOST, "")).rstrip("/")
        if not self.host:
            raise InputError(f"no Kubeflow host: give --host, or set {HOST}, such as http://127.0.0.1:8888")
        if "://" not in self.host:
            raise InputError(f"Kubeflow host {self.host!r}: expected an address such as http://127.0.0.1:8888")
        self.namespace = os.environ.get(NAMESPACE, "")
        configuration = api.Configuration(host=self.host)
        configuration.retries = urllib3.Retry(_RETRIES, backoff_factor=0.2)
        token = os.environ.get(TOKEN, "")
        if token:
            configuration.api_key["authorization"] = token
            configuration.api_key_prefix["authorization"] = "Bearer"
        self._api = api
        self._client = api.ApiClient(configuration)
        self._client.rest_client.request = self._answered(self._client.rest_client.request)
        self._call("its health", api.HealthzServiceApi(self._client).healthz_service_get_healthz)

    def _get_text(self, what: str, path: str, names: Mapping[str, str], query: Mapping[str, str]) -> str:
        response = self._call(
            what,
            self._client.call_api,
            path,
            "GET",
            path_params=dict(names),
            query_params=list(query.items()),
            auth_settings=["Bearer"],
            _preload_content=False,
            _return_http_data_only=True,
        )
        return str(response.data.decode("utf-8", "replace"))

    def _scope(self) -> dict[str, str]:
        return {"namespace": self.namespace} if self.namespace else {}

    def _pages(
        self, what: str, method: Callable[..., Any], field: str, *arguments: Any, **options: Any
    ) -> Iterator[Any]:
        token = ""
        while True:
            page = self._call(what, method, *arguments, page_size=_PAGE, page_token=token, **options)
            yield from getattr(page, field) or ()
            token = page.next_page_token or ""
            if not token:
                return

    def _answered(self, request: Callable[..., Any]) -> Callable[..., Any]:
        """Return the request function of the generated client, changed to refuse answers that are not from the API.

        The client would build empty objects from a login page, which has status 200.
        """

        def checked(*arguments: Any, **options: Any) -> Any:
            response = request(*arguments, **options)
            if _is_page(response) or (options.get("_preload_content", True) and not _is_object(response.data)):
                raise self._no_api()
            return response

        return checked

    def _no_api(self) -> NoApi:
        return NoApi(
            f"Kubeflow at {self.host}: answers with a web page instead of Kubeflow's API: the login has expired, "
            f"or the address is wrong; renew {TOKEN}, and check --host or {HOST}"
        )

    def _call(self, what: str, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call the API and turn each failure into an error with one line."""
        try:
            return method(*arguments, _request_timeout=_TIMEOUT_SECONDS, **options)
        except self._api.ApiException as error:
            if error.status in _NOT_FOR_A_PAGE and _looks_like_page(error.body):
                raise self._no_api() from error
            raise self._refused(what, error) from error
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise Unreachable(
                f"Kubeflow at {self.host}: does not answer ({one_line(reason, LONGEST)}); check --host or {HOST}"
            ) from error
        except ValueError as error:
            raise InputError(
                f"Kubeflow at {self.host}: the answer is not from its API, or the server requires a login; "
                f"check --host, and set {TOKEN} if a token is needed"
            ) from error

    def _refused(self, what: str, error: Any) -> InputError:
        try:
            content = json.loads(error.body)
            message = content.get("message") or content.get("error") or ""
        except (TypeError, ValueError, AttributeError):
            message = error.reason or ""
        message = one_line(message, LONGEST)
        if error.status in (401, 403):
            return InputError(
                f"Kubeflow at {self.host}: refuses the credentials for {what} ({error.status} {message}); "
                f"set {TOKEN} to a valid token, and {NAMESPACE} to your namespace"
            )
        if error.status == 404:
            return NoSuchThing(f"{what}: not known at {self.host} ({message})")
        if error.status >= 500 and "database" not in message.lower():
            return Unreachable(f"Kubeflow at {self.host}: the request for {what} failed ({error.status} {message})")
        return InputError(f"{what}: refused by Kubeflow at {self.host} ({error.status} {message})")


def _is_page(response: Any) -> bool:
    # The generated client wraps the response of urllib3 after reading it.
    headers = getattr(response, "urllib3_response", response).headers
    return "html" in str(headers.get("Content-Type", "")).lower()


def _looks_like_page(body: Any) -> bool:
    return str(body or "").lstrip().startswith("<")


def _is_object(data: Any) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False
