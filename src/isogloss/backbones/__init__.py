"""Backbones: families, sites, loading, fingerprints, bundled models."""

from isogloss.backbones.backbone import Backbone
from isogloss.backbones.families import FAMILIES, Family
from isogloss.backbones.fingerprint import fingerprint
from isogloss.backbones.loading import load_backbone
from isogloss.backbones.sites import BlockSite, Sites

__all__ = ["FAMILIES", "Backbone", "BlockSite", "Family", "Sites", "fingerprint", "load_backbone"]
