"""The door of a host apart: it takes requests, and says of each how far it is; nothing else."""

from fastapi import APIRouter

from flows.api import requests, standing
from flows.api.bodies import Accepted
from flows.api.once import OnceRoute

router = APIRouter(tags=["requests"], route_class=OnceRoute)
router.add_api_route(
    "/requests",
    requests.ask,
    methods=["POST"],
    status_code=201,
    responses={200: {"model": Accepted, "description": "each of them stood before"}},
)
router.add_api_route("/requests/{request_id}", requests.show, methods=["GET"])
router.add_api_route("/token", standing.token, methods=["GET"], tags=["standing"])
